-- ARGV: ttl, ticket, policy, lease in ms, fresh generation. Returns 1 when the ticket holds the thread.
local ttl, ticket, policy, lease, fresh = unpack(ARGV, 1, 5)
local t = now()
local holder = redis.call('HGET', key, 'f')
local busy = holder and holder ~= '' and holder ~= ticket and tonumber(redis.call('HGET', key, 'e')) > t
local queue, mine, left = {}, nil, 0
for waiting, till in string.gmatch(redis.call('HGET', key, 'q') or '', '(%w+):(%d+);') do
  if waiting == ticket then
    queue[#queue + 1] = {waiting, t + lease}
    mine, left = #queue, till - t
  elseif tonumber(till) > t then
    queue[#queue + 1] = {waiting, till}
  end
end
local held = policy == 'replace' or (not busy and (#queue == 0 or mine == 1))
if not held and policy ~= 'queue' then return 0 end
if not held and left > 0.6 * lease then return 0 end -- only looking: nothing to write, nothing to replicate
if held and mine then
  table.remove(queue, mine)
elseif not held and not mine then
  queue[#queue + 1] = {ticket, t + lease}
end
local text = {}
for i, row in ipairs(queue) do text[i] = row[1] .. ':' .. string.format('%d', row[2]) .. ';' end
generation(fresh)
redis.call('HSET', key, 'q', table.concat(text))
if held then redis.call('HSET', key, 'f', ticket, 'e', string.format('%d', t + lease)) end
keep(ttl)
return held and 1 or 0

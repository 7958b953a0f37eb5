-- ARGV: ttl, ticket, generation the positions come from, how many and the last's digest, fresh generation, id, ns, record without "previous",
--       #required, fields...; #messages, (digest, message)...; #blobs, (field, value)...; #writes, (node, head, value)...
-- An empty id stores writes only. Returns {status, generation, positions of the messages}.
local ttl, ticket, based, count, last, fresh, id, ns, record = unpack(ARGV, 1, 9)
local at = 10
local function take(width)
  local count, rows = tonumber(ARGV[at]), {}
  at = at + 1
  for i = 1, count do
    rows[i] = {unpack(ARGV, at, at + width - 1)}
    at = at + width
  end
  return rows
end
local required, fresh_messages, blobs, writes = take(1), take(2), take(2), take(3)

if ticket ~= '' then
  local holder = redis.call('HGET', key, 'f')
  if not holder then return {'gone'} end
  if holder ~= ticket then return {'stale'} end
end
-- What this write builds on may have expired or been pruned since it was read: then the client sends everything.
if based ~= '' and (redis.call('HGET', key, 'g') ~= based or known(based, count, last) ~= tonumber(count)) then return {'again'} end
for _, row in ipairs(required) do
  if redis.call('HEXISTS', key, row[1]) == 0 then return {'again'} end
end

local g = generation(fresh)
local positions = {}
for i, row in ipairs(fresh_messages) do
  local position = redis.call('HGET', key, 'd' .. row[1])
  if not position then
    position = redis.call('HINCRBY', key, 'n', 1) - 1
    redis.call('HSET', key, 'd' .. row[1], position, 'm' .. position, row[2])
  end
  positions[i] = tonumber(position)
end
local function resolve(value) -- "#3" stands for the third message of this call
  local kind = string.sub(value, 1, 1)
  if kind ~= 'r' and kind ~= 's' then return value end
  return (string.gsub(value, '#(%d+)', function(i) return positions[tonumber(i)] .. '+1' end))
end
for _, row in ipairs(blobs) do
  redis.call('HSET', key, row[1], resolve(row[2]))
end
for _, row in ipairs(writes) do
  local value = resolve(row[3])
  local log = redis.call('HGET', key, 'w' .. row[1]) or ''
  redis.call('HSET', key, 'w' .. row[1], log .. struct.pack('>I4', #row[2]) .. row[2] .. struct.pack('>I4', #value) .. value)
end

if id ~= '' then
  -- All checkpoints of the thread hang on one string, newest first, whatever their namespace.
  local node = id .. '\0' .. ns
  local before = previous(node)
  if not before then
    local head = redis.call('HGET', key, 'h')
    if not head or less(head, node) then
      before = head or ''
      redis.call('HSET', key, 'h', node)
    else
      local after = head
      before = previous(after)
      while before ~= '' and less(node, before) do
        after = before
        before = previous(after)
      end
      local later = redis.call('HGET', key, 'c' .. after)
      local _, rest = part(later, 1)
      redis.call('HSET', key, 'c' .. after, struct.pack('>I4', #node) .. node .. string.sub(later, rest))
    end
  end
  redis.call('HSET', key, 'c' .. node, struct.pack('>I4', #before) .. before .. record)
  local newest = redis.call('HGET', key, 'l' .. ns)
  if not newest or not less(id, newest) then redis.call('HSET', key, 'l' .. ns, id) end
end
keep(ttl)
return {'ok', g, positions}

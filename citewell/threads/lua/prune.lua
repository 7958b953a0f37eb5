-- ARGV: ttl, fresh generation, "" | run ids... Without run ids: keep the newest checkpoint of each namespace and the
-- ancestors its delta channels are rebuilt from. With them: drop the checkpoints of these runs. Then drop whatever
-- nothing refers to any more. Returns the number of checkpoints dropped.
local ttl, fresh = ARGV[1], ARGV[2]
local runs = {}
for i = 3, #ARGV do runs[ARGV[i]] = true end
local nodes, node = {}, redis.call('HGET', key, 'h')
if not node then return 0 end
while node and node ~= '' do
  local record = redis.call('HGET', key, 'c' .. node)
  local one = {node = node}
  local at, deltas
  node, at = part(record, 1)
  one.parent, at = part(record, at)
  one.run, at = part(record, at)
  deltas, at = part(record, at)
  one.names = part(record, at)
  one.deltas = {}
  for channel in string.gmatch(deltas, '(%Z+)%z') do one.deltas[channel] = true end
  one.rest = string.sub(record, 5 + #node)
  one.id, one.ns = string.match(one.node, '^(%Z*)%z(.*)$')
  nodes[#nodes + 1] = one
  nodes[one.node] = one
end

local kept = {}
if next(runs) then
  for _, one in ipairs(nodes) do kept[one.node] = not runs[one.run] end
else
  local seen = {}
  for _, one in ipairs(nodes) do
    if not seen[one.ns] then
      seen[one.ns] = true
      kept[one.node] = true
      local open, up = one.deltas, nodes[one.parent .. '\0' .. one.ns]
      while next(open) and up do
        kept[up.node] = true
        for channel in string.gmatch(up.names, '(%Z*)%z%Z*%z') do open[channel] = nil end
        up = nodes[up.parent .. '\0' .. up.ns]
      end
    end
  end
end

local live, needed, latest, before, dropped = {}, {}, {}, '', 0
for i = #nodes, 1, -1 do -- oldest first, tying the string anew
  local one = nodes[i]
  if kept[one.node] then
    redis.call('HSET', key, 'c' .. one.node, struct.pack('>I4', #before) .. before .. one.rest)
    before = one.node
    latest[one.ns] = one.id
    live['c' .. one.node] = true
    live['w' .. one.node] = true
    note_writes(redis.call('HGET', key, 'w' .. one.node) or '', 0, needed)
    for channel, version in string.gmatch(one.names, '(%Z*)%z(%Z*)%z') do
      local field = 'b' .. one.ns .. '\0' .. channel .. '\0' .. version
      live[field] = true
      note(redis.call('HGET', key, field) or '', 0, needed)
    end
  else
    dropped = dropped + 1
  end
end
if dropped == 0 then return 0 end
if before == '' then
  redis.call('UNLINK', key)
  return dropped
end
for ns in pairs(latest) do live['l' .. ns] = true end
for _, field in ipairs(redis.call('HKEYS', key)) do
  local kind = string.sub(field, 1, 1)
  local gone = false
  if kind == 'm' then
    gone = not needed[tonumber(string.sub(field, 2))]
  elseif kind == 'd' then
    gone = not needed[tonumber(redis.call('HGET', key, field))]
  elseif kind == 'c' or kind == 'b' or kind == 'w' or kind == 'l' then
    gone = not live[field]
  end
  if gone then redis.call('HDEL', key, field) end
end
for ns, id in pairs(latest) do redis.call('HSET', key, 'l' .. ns, id) end
redis.call('HSET', key, 'h', before, 'g', fresh) -- messages are gone: no client may count on its positions
keep(ttl)
return dropped

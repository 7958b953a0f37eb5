-- ARGV: ttl, node or id to start before (empty: at the newest), "1" when only namespace ns, ns, most to return,
--       generation and count of the messages the client has. Returns {generation, checkpoints, messages}.
local ttl, before, one, ns, limit = unpack(ARGV, 1, 5)
local node
if before ~= '' and redis.call('HEXISTS', key, 'c' .. before) == 1 then
  node = previous(before)
else
  node = redis.call('HGET', key, 'h')
  while node and node ~= '' and before ~= '' and not less(node, before) do node = previous(node) end
end
if not node then return false end
local from, needed, found = known(ARGV[6], ARGV[7], ARGV[8]), {}, {}
while node ~= '' and #found < tonumber(limit) do
  if one == '0' or string.match(node, '%z(.*)$') == ns then
    found[#found + 1] = checkpoint(node, from, needed) or {}
  end
  node = previous(node) or ''
end
keep(ttl)
return {redis.call('HGET', key, 'g'), found, messages(needed)}

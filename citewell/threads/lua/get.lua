-- ARGV: ttl, id (empty: the newest), ns, generation, count and last digest of the messages the client has.
-- Returns {generation, checkpoint, messages}, nothing when there is no such checkpoint, {} when it should be there.
local ttl, id, ns = unpack(ARGV, 1, 3)
local asked = id ~= ''
if not asked then id = redis.call('HGET', key, 'l' .. ns) end
if not id then return false end
local from, needed = known(ARGV[4], ARGV[5], ARGV[6]), {}
local found = checkpoint(id .. '\0' .. ns, from, needed)
if not found then
  if asked then return false end
  return {}
end
keep(ttl)
return {redis.call('HGET', key, 'g'), found, messages(needed)}

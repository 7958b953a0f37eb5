-- ARGV: ttl, owner, title, fresh generation, ticket (empty: whoever holds it). Returns {updated in ms, time to live left in ms
-- (-1: none)}, or {'gone'} or {'stale'} where the ticket does not hold the thread.
if ARGV[5] ~= '' then
  local holder = redis.call('HGET', key, 'f')
  if holder ~= ARGV[5] then return {holder and 'stale' or 'gone'} end
end
local t = string.format('%d', now())
generation(ARGV[4])
redis.call('HSET', key, 'o', ARGV[2], 'u', t)
redis.call('HSETNX', key, 'a', t)
if (redis.call('HGET', key, 'i') or '') == '' then redis.call('HSET', key, 'i', ARGV[3]) end
keep(ARGV[1])
local own = tonumber(redis.call('HGET', key, 't') or ARGV[1]) -- 0: for good, though nothing is saved yet
return {t, own > 0 and redis.call('PTTL', key) or -1}

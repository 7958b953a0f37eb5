-- KEYS[1] is an owner's list. ARGV: thread id, updated in ms, what the thread has left to live in ms (-1: for good).
-- The list need not outlive its last thread, but must not die before any of them.
-- Returns up to two threads that have not been used for as long as this one has left: they may be gone, as their keys tell.
local left = redis.call('PTTL', key) -- -2: no list yet, -1: a thread in it stays for good
redis.call('ZADD', key, ARGV[2], ARGV[1])
local ttl = tonumber(ARGV[3])
if ttl < 0 then
  redis.call('PERSIST', key)
  return {}
elseif left ~= -1 then
  redis.call('PEXPIRE', key, math.max(left, ttl))
end
local till = string.format('%.0f', ARGV[2] - ttl)
local unused = redis.call('ZCOUNT', key, '-inf', till)
if unused == 0 then return {} end
return redis.call('ZREVRANGEBYSCORE', key, till, '-inf', 'LIMIT', ARGV[2] % unused, 2)

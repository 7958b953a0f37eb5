-- KEYS[1] is an owner's list. ARGV: thread id, updated in ms, what the thread has left to live in ms (-1: for good).
-- The list need not outlive its last thread, but must not die before any of them.
local left = redis.call('PTTL', key) -- -2: no list yet, -1: a thread in it stays for good
redis.call('ZADD', key, ARGV[2], ARGV[1])
local ttl = tonumber(ARGV[3])
if ttl < 0 then
  redis.call('PERSIST', key)
elseif left ~= -1 then
  redis.call('PEXPIRE', key, math.max(left, ttl))
end
return 1

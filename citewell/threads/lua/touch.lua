-- ARGV: ttl, its own ttl in ms (empty: leave it as it is).
-- Returns {owner, updated in ms, what is left to live in ms (-1: for good)}, nothing where there is no thread.
if redis.call('EXISTS', key) == 0 then return false end
if ARGV[2] ~= '' then redis.call('HSET', key, 't', ARGV[2]) end
keep(ARGV[1])
return {redis.call('HGET', key, 'o'), redis.call('HGET', key, 'u'), redis.call('PTTL', key)}

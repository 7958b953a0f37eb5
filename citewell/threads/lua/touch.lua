-- ARGV: ttl, its own ttl in ms (empty: leave it as it is).
if redis.call('EXISTS', key) == 0 then return 0 end
if ARGV[2] ~= '' then redis.call('HSET', key, 't', ARGV[2]) end
keep(ARGV[1])
return 1

-- ARGV: title. Returns 1, or 0 without a thread.
if redis.call('HEXISTS', key, 'o') == 0 then return 0 end
redis.call('HSET', key, 'i', ARGV[1])
return 1

-- ARGV: ticket, lease in ms. A lease that ran out while nobody wanted the thread is still good.
-- Returns 0 (not the holder), 1, or 2: somebody asked this run to stop.
if redis.call('HGET', key, 'f') ~= ARGV[1] then return 0 end
redis.call('HSET', key, 'e', string.format('%d', now() + ARGV[2]))
return redis.call('HGET', key, 's') == ARGV[1] and 2 or 1

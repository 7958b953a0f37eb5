-- ARGV: ticket, lease in ms. A lease that ran out while nobody wanted the thread is still good.
if redis.call('HGET', key, 'f') ~= ARGV[1] then return 0 end
redis.call('HSET', key, 'e', string.format('%d', now() + ARGV[2]))
return 1

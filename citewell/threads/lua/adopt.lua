-- ARGV: ttl, fresh generation, (field, value)...: a copy of another thread takes this one's place.
redis.call('UNLINK', key)
for at = 3, #ARGV, 1000 do
  redis.call('HSET', key, unpack(ARGV, at, math.min(at + 999, #ARGV)))
end
redis.call('HSET', key, 'g', ARGV[2])
redis.call('HDEL', key, 'f', 'e', 'q', 'o', 'i', 'a', 'u')
keep(ARGV[1])
return 1

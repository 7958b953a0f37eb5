-- Returns {whether there was a thread, its owner}.
local owner = redis.call('HGET', key, 'o')
local was = redis.call('HEXISTS', key, 'h') + redis.call('HEXISTS', key, 'o')
redis.call('UNLINK', key)
return {was, owner or ''}

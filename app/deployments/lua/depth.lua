-- KEYS: queue. ARGV: id. How many samples wait; those that have expired are taken off.
while true do
    local oldest = redis.call('LINDEX', KEYS[1], 0)
    if not oldest or redis.call('EXISTS', key('sample', ARGV[1], oldest)) == 1 then
        return redis.call('LLEN', KEYS[1])
    end
    redis.call('LPOP', KEYS[1])
end

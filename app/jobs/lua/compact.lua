-- KEYS: job. ARGV: id, most events, most bytes with the record.
-- Of a job that has ended and whose files are tidy: its newest events become one text, which takes a tenth of what a
-- short stream does. The last event is kept in any case.
local id = ARGV[1]
redis.call('SREM', PREFIX .. 'untidy', id)
local room = tonumber(ARGV[3])
for _, part in ipairs(redis.call('HGETALL', KEYS[1])) do
    room = room - #part
end
local kept = {}
for _, entry in ipairs(redis.call('XREVRANGE', key('events', id), '+', '-', 'COUNT', ARGV[2])) do
    local data = entry[2][2]
    room = room - #data
    if room < 0 and #kept > 0 then
        break
    end
    table.insert(kept, 1, data)
end
if #kept > 0 then
    redis.call('SET', key('tail', id), table.concat(kept, '\n'))
    redis.call('DEL', key('events', id))
end
return #kept

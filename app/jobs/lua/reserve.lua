-- KEYS: idempotency key. ARGV: fingerprint, token, ttl_ms
return reserve(KEYS[1], ARGV[1], ARGV[2], ARGV[3])

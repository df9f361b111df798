-- Keys for tokens, and what people write today: the usual verification of a JWT in SQL, with pgcrypto.
SELECT tenancy.add_signing_key('hs256', 'HS256', 'a secret of more than thirty-two bytes');
SELECT tenancy.add_signing_key('eddsa', 'EdDSA', '{"kty":"OKP","crv":"Ed25519",
    "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}');
SELECT tenancy.add_signing_key('es256', 'ES256', '{"kty":"EC","crv":"P-256",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}');

CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE FUNCTION custom.set_tenant_signed(token text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    part   text[] := string_to_array(token, '.');
    claims jsonb;
BEGIN
    IF part[3] <> translate(encode(hmac(part[1] || '.' || part[2], 'a secret of more than thirty-two bytes', 'sha256'),
                                   'base64'), E'+/=\n', '-_') THEN
        RAISE 'bad signature';
    END IF;
    claims := convert_from(decode(rpad(translate(part[2], '-_', '+/'), (length(part[2]) + 3) / 4 * 4, '='), 'base64'),
                           'UTF8')::jsonb;
    IF (claims->>'exp')::numeric < extract(epoch FROM clock_timestamp()) THEN
        RAISE 'expired';
    END IF;
    RETURN set_config('bench.tenant', claims->>'tenant', true);
END $$;

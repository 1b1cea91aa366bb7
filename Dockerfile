# The host, without plugins: mount them at /plugins, or build an image of your own `FROM` this one.
#
#   docker build -t semel .
#   docker run --read-only --tmpfs /var/cache:mode=1777 -v "$PWD/plugins:/plugins:ro" \
#     -v "$PWD/semel.toml:/etc/semel/semel.toml:ro" -e SEMEL_STORE=redis://redis:6379 semel
#
# Builder and runtime are of one Debian release, so that they have the same libc.
FROM docker.io/library/rust:1.95-bookworm AS builder
WORKDIR /src
# librdkafka, OpenSSL and aws-lc are compiled from C. The image has the compiler, make and Perl; aws-lc
# wants cmake on some architectures.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
COPY . .
# The caches outlive the layer, so that a change of the host does not compile wasmtime again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package semel --bin semel \
    && install -D -m 755 target/release/semel /out/semel

FROM docker.io/library/debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -m 700 -o 65532 -g 65532 /var/lib/semel /var/cache/semel
COPY --from=builder /out/semel /usr/local/bin/semel
COPY LICENSE /usr/share/doc/semel/LICENSE
# Compiled plugins are kept in /var/cache/semel, which must belong to this user alone. HOME is for
# libraries that look for one. All other writing is the store's.
ENV XDG_CACHE_HOME=/var/cache HOME=/var/lib/semel SEMEL_CONFIG=/etc/semel/semel.toml
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# Where `redb:./semel-data`, the default store, comes to lie.
WORKDIR /var/lib/semel
VOLUME ["/var/lib/semel"]
# The process handles SIGTERM and starts no others, so it needs no init. There is no HEALTHCHECK:
# only the HTTP source has something to ask, and a host that fails ends by itself.
ENTRYPOINT ["/usr/local/bin/semel"]
CMD ["run", "--plugins", "/plugins", "--log-format", "json"]

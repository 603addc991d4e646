# Builds and tests Reticle on Debian 12, then copies the one binary into a slim image that runs as an ordinary user.
#   docker build -t reticle . && docker run --rm -p 8080:8080 -p 50051:50051 reticle
FROM docker.io/library/debian:bookworm-slim AS build
WORKDIR /src
COPY deploy/packages-debian12.txt deploy/packages-debian12.txt
RUN apt-get update \
 && awk '/^\[/ {on = ($0 == "[build]"); next} on && NF && !/^#/ {print $1}' deploy/packages-debian12.txt \
    | xargs env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/*
COPY . .
RUN cmake --preset release -DRETICLE_BUILD_TESTS=OFF -DRETICLE_BUILD_BENCHMARKS=OFF \
 && cmake --build build/release --target reticle \
 && strip --strip-debug build/release/reticle

FROM docker.io/library/debian:bookworm-slim
COPY deploy/packages-debian12.txt /tmp/packages.txt
RUN apt-get update \
 && awk '/^\[/ {on = ($0 == "[runtime]"); next} on && NF && !/^#/ {print $1}' /tmp/packages.txt \
    | xargs env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/* /tmp/packages.txt \
 && useradd --system --uid 10001 --no-create-home reticle
COPY --from=build /src/build/release/reticle /usr/local/bin/reticle
USER 10001
EXPOSE 8080 50051
HEALTHCHECK --interval=10s --timeout=2s --start-period=5s CMD curl -fsS http://127.0.0.1:8080/health/ready || exit 1
ENTRYPOINT ["reticle"]
CMD ["serve", "--http", "0.0.0.0:8080", "--grpc", "0.0.0.0:50051"]

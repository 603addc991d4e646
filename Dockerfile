# Builds Reticle on Debian 12, tests it, and copies the one binary into a slim image that runs as an ordinary user on a
# read-only root; what it writes goes to the volume /var/lib/reticle.
#   docker build -t reticle . && docker run --rm --read-only -p 8080:8080 -p 50051:50051 reticle
ARG BASE=docker.io/library/debian:bookworm-slim
# Its own argument, so that an image that has the build packages already can stand in.
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY deploy/packages-debian12.txt deploy/packages-debian12.txt
RUN apt-get update \
 && awk '/^\[/ {on = ($0 == "[build]"); next} on && NF && !/^#/ {print $1}' deploy/packages-debian12.txt \
    | xargs env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/*
ENV LANG=C.UTF-8
COPY . .
RUN cmake --preset release -DRETICLE_BUILD_BENCHMARKS=OFF \
 && cmake --build build/release --target reticle

# A part of the tests, so that an image takes minutes: the scheduler, the emulated card, the plan, and the server as a
# process from outside. All of them: ./dev test.
FROM build AS test
ARG TEST_TARGETS="scheduler_engine_test scheduler_dispatcher_test hardwired_timing_test server_plan_test"
RUN cmake --build build/release --target ${TEST_TARGETS} \
 && for target in ${TEST_TARGETS}; do build/release/bin/${target} --gtest_brief=1 || exit 1; done \
 && RETICLE=build/release/reticle python3 tests/integration/http_test.py \
 && cp build/release/reticle /reticle && strip --strip-debug /reticle

FROM ${BASE}
COPY deploy/packages-debian12.txt /tmp/packages.txt
RUN apt-get update \
 && awk '/^\[/ {on = ($0 == "[runtime]"); next} on && NF && !/^#/ {print $1}' /tmp/packages.txt \
    | xargs env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* /tmp/packages.txt \
 && useradd --system --uid 10001 --home-dir /var/lib/reticle --no-create-home --shell /usr/sbin/nologin reticle \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/reticle
COPY --from=test /reticle /usr/local/bin/reticle
USER 10001:10001
WORKDIR /var/lib/reticle
VOLUME /var/lib/reticle
EXPOSE 8080 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=2s --start-period=10s --retries=3 \
  CMD ["curl", "-fsS", "-o", "/dev/null", "http://127.0.0.1:8080/health/ready"]
ENTRYPOINT ["reticle"]
CMD ["serve", "--http", "0.0.0.0:8080", "--grpc", "0.0.0.0:50051"]

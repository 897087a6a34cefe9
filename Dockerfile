# syntax=docker/dockerfile:1
# One static binary and the public certificate authorities, nothing else; runs as a user without rights.

FROM rust:1.95.0-alpine AS build
RUN apk add --no-cache build-base ca-certificates
WORKDIR /src
COPY rust-toolchain.toml Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY benches benches
COPY tests/it/main.rs tests/it/main.rs
# The build image is the pinned toolchain; without this rustup would fetch clippy and rustfmt, too.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin postrider && \
    install -D target/release/postrider /image/postrider && \
    install -d -o 65532 -g 65532 -m 0700 /image/var/lib/postrider && \
    install -d -m 1777 /image/tmp && \
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

FROM scratch
COPY --from=build /image /
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["/postrider"]
CMD ["run"]

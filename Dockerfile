# One image with all programs: /backup-driver, /datamgr, /vddk-helper, /vsphere-backup (also /kubectl-vsphere_backup).
# VMware's disk library is not in it; see the chart's values under `vddk`.
# A second image, for Velero's init container, holds the plugin alone: Velero runs every executable it finds (P-01).
#
#   docker build -t velero-plugin-for-vsphere .
#   docker build -t velero-plugin-for-vsphere-item-actions --target velero-plugin .
#   velero plugin add velero-plugin-for-vsphere-item-actions

ARG RUST_VERSION=1.95.0
ARG DEBIAN_RELEASE=bookworm

FROM rust:${RUST_VERSION}-slim-${DEBIAN_RELEASE} AS build
ARG RUST_VERSION
# the image's own compiler; rust-toolchain.toml would fetch the tools of a developer as well
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
# zstd and ring compile C; nothing else is needed from the distribution
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
      --bin backup-driver --bin datamgr --bin vddk-helper --bin vsphere-backup \
 && mkdir /programs \
 && cp target/release/backup-driver target/release/datamgr target/release/vddk-helper target/release/vsphere-backup /programs/ \
 && ln -s vsphere-backup /programs/kubectl-vsphere_backup

# Velero's container has few libraries and a glibc of its own age, so what runs there brings all it needs
FROM build AS build-plugin
RUN apt-get update \
 && apt-get install --yes --no-install-recommends musl-tools \
 && rm -rf /var/lib/apt/lists/* \
 && rustup target add "$(uname -m)-unknown-linux-musl"
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    export TARGET="$(uname -m)-unknown-linux-musl" TARGET_CC=musl-gcc \
 && cargo build --release --locked --target "$TARGET" --bin velero-plugin-for-vsphere \
 && mkdir /plugin \
 && cp "target/$TARGET/release/velero-plugin-for-vsphere" /plugin/

# Nothing but one executable, which copies itself: Velero mounts its plugin folder at /target
FROM scratch AS velero-plugin
COPY LICENSE /licenses/LICENSE
COPY --from=build-plugin /plugin/velero-plugin-for-vsphere /velero-plugin-for-vsphere
USER 65532:65532
ENTRYPOINT ["/velero-plugin-for-vsphere", "install", "/target"]

# VDDK is linked against glibc, so the helper that loads it needs glibc and the C++ runtime beside it
FROM debian:${DEBIAN_RELEASE}-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libgcc-s1 libstdc++6 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /programs/ /
COPY LICENSE /licenses/LICENSE
USER 65532:65532
ENTRYPOINT ["/vsphere-backup"]

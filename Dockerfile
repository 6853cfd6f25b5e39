# The program alone: about the size of its binary and glibc.
#
#   docker build -t advcl .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" advcl run smoke
#
# The CPU only. Recipes, images and run folders are those of the folder that is mounted at /work.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The folders that cargo fills are kept between builds, so the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin advcl \
    && strip -o /advcl target/release/advcl

# glibc and libgcc, no shell, and a user who is not root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /advcl /usr/local/bin/advcl
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/advcl/
COPY data/fashion-mnist-12k/LICENSE /usr/share/doc/advcl/LICENSE-fashion-mnist
# Any user may write there: decoded images of large sets.
ENV ADVCL_CACHE=/tmp/advcl-cache
WORKDIR /work
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/advcl"]
CMD ["--help"]

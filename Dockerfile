# The gateway's image: one static binary, the CA certificates, a user that is
# not root; no shell, no package manager.
#
#   make image VERSION=v1.2.3
#   docker run -p 8080:8080 -v ./gateway:/etc/sidegate:ro -v sidegate:/var/lib/sidegate sidegate
#
# `sidegate run` starts in /etc/sidegate, with sidegate.yaml and policy.yaml there; mount that
# folder, or build an image FROM this one with the two files in it. With
# storage.local, or an audit log that must outlive the container, give it a
# volume and name it in sidegate.yaml, owned by uid 65532:
#
#   storage: {local: {dir: /var/lib/sidegate/data}}
#   audit: {dir: /var/lib/sidegate/audit}
#
# The tags say which images these are; who releases pins them by digest
# (FROM golang:1.26@sha256:...), so that the same commit gives the same image.
ARG GO_IMAGE=docker.io/library/golang:1.26-bookworm
ARG BASE_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${GO_IMAGE} AS build
ARG VERSION="" REVISION=""
WORKDIR /src
# The dependencies first: they change less often than the code.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The flags of .ci/build, and go.mod's Go, which is fetched where the image has
# another one: golang's images say GOTOOLCHAIN=local, and one that lies around
# since months would do, with what was wrong in it.
RUN CGO_ENABLED=0 GOTOOLCHAIN="$(sed -n 's/^toolchain //p' go.mod)" go build -trimpath -tags grpcnotrace,disable_grpc_modules -buildvcs=false -mod=readonly -ldflags "-s -w -X sidegate/cmd.version=${VERSION} -X sidegate/cmd.revision=${REVISION}" -o /sidegate ./cmd/sidegate

FROM ${BASE_IMAGE}
ARG VERSION="" REVISION="" CREATED=""
LABEL org.opencontainers.image.title="sidegate" \
      org.opencontainers.image.description="An identity-aware gateway: who may do what, on record" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /sidegate /sidegate
USER 65532:65532
WORKDIR /etc/sidegate
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s CMD ["/sidegate", "health"]
ENTRYPOINT ["/sidegate"]
CMD ["run"]

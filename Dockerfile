# The service as an image: built from the hash-locked requirements, run without root on a read-only root file system.
#
#   docker build -t sts .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -v sts-var:/var/lib/sts -v ./sts.yaml:/etc/sts/sts.yaml:ro -p 127.0.0.1:8080:8080 sts
#
# The container runs as user 65532, and `sts init` writes sts.yaml with mode 0600. Make that user its owner:
#   chown 65532 sts.yaml
# The mode stays 0600: a configuration may hold secrets as they are, of Redis or of an introspection client for example.
# A container must listen beyond loopback, so its sts.yaml says who keeps the wire safe:
#   listen: {address: 0.0.0.0:8080, transport: mesh}      (or: terminated)
# /var/lib/sts holds the deployment secret, the key ring and the state: it is the one thing to keep, and to protect.
#
# The base image is named by its digest, since a tag can be pushed again with other content. The digest is that of the
# index of all platforms. It holds Debian's fixes up to its own date alone, so renew it for each release:
#   docker buildx imagetools inspect python:3.13-slim-trixie --format '{{.Manifest.Digest}}'
# Another Python, or a copy in a registry of your own: --build-arg BASE=python:3.14-slim-trixie@sha256:...
ARG BASE=python:3.13-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

FROM ${BASE} AS build
WORKDIR /src
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python -m venv /opt/sts \
 && pip install --no-cache-dir --require-hashes -r requirements/build.txt \
 && /opt/sts/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY sts sts
COPY keys keys
# pip is not needed any more, so it does not go into the image.
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/sts/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
 && /opt/sts/bin/pip uninstall --yes pip

FROM ${BASE}
COPY --from=build /opt/sts /opt/sts
# What workers share for a while (heartbeats, metrics) is in /dev/shm: memory, and writable in a read-only container.
# A number, not a name, so that a cluster can check "not root" without reading /etc/passwd.
RUN install -d -m 0700 -o 65532 -g 65532 /var/lib/sts
ENV PATH=/opt/sts/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STS_CONFIG=/etc/sts/sts.yaml \
    STS_VAR=/var/lib/sts \
    TMPDIR=/dev/shm
USER 65532:65532
WORKDIR /var/lib/sts
VOLUME /var/lib/sts
EXPOSE 8080
# Gunicorn's master takes SIGTERM as "finish what is under way, then stop".
STOPSIGNAL SIGTERM
# It asks where the file's `listen` says; after `serve --listen ADDR` run it with --health-cmd "sts health --listen ADDR".
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 CMD ["sts", "health"]
ENTRYPOINT ["sts"]
CMD ["serve"]

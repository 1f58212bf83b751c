# kogpt on CPUs: `docker build -t kogpt:0.2.0 .` (docs/containers.md). Dockerfile.cuda is for GPUs.
FROM debian:bookworm-slim

# wget is for the health checks of Kubernetes' Ray operator. Java comes with the Python packages.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv wget \
    && rm -rf /var/lib/apt/lists/*

# The user may be another one (docker run --user): the project is in a folder that all can read, /data is anybody's.
RUN useradd --create-home --uid 1000 kogpt \
    && chmod 755 /home/kogpt \
    && install --directory --owner kogpt /home/kogpt/kogpt \
    && install --directory --mode 1777 /data
USER kogpt
WORKDIR /home/kogpt/kogpt
COPY --chown=kogpt . .
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 sh launch/install.sh

# The home of a user without a name is /, where matplotlib cannot keep its cache.
ENV PATH=/home/kogpt/kogpt/.venv/bin:$PATH LANG=C.UTF-8 MPLCONFIGDIR=/tmp/matplotlib
CMD ["kogpt", "doctor"]

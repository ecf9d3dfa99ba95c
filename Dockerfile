# syntax=docker/dockerfile:1
# Images of the service. Targets: api, worker-cpu, worker-gpu; the agent and the serving, shadow and verifying processes
# run in a worker image. The release of Python is the one that the tests run on.
ARG PYTHON=3.11-slim-trixie

# The project's own wheel: small, and the only layer that a change of the code touches.
FROM python:${PYTHON} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY workers ./workers
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON} AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HF_HUB_OFFLINE=1 \
    VLLM_NO_USAGE_STATS=1 \
    DO_NOT_TRACK=1 \
    HOME=/srv/hemostat \
    HEMOSTAT_HOME=/srv/hemostat \
    HEMOSTAT_MODELS=/srv/models/models.toml
# A volume that is mounted here for the first time takes over the owner.
RUN groupadd --gid 10001 hemostat \
    && useradd --uid 10001 --gid hemostat --home-dir /srv/hemostat --no-create-home --shell /usr/sbin/nologin hemostat \
    && install -d -o hemostat -g hemostat -m 0700 /srv/hemostat \
    && install -d -o hemostat -g hemostat -m 0755 /srv/models
COPY --chmod=0555 deploy/entrypoint.sh deploy/healthy.py deploy/agent_healthy.py /usr/local/bin/
WORKDIR /srv/hemostat
ENTRYPOINT ["entrypoint.sh"]

FROM base AS api
COPY requirements/api.lock requirements/worker-cpu.lock /tmp/
# Differences of reports by token are computed beside the API, with three of the worker's packages.
RUN pip install --no-deps -r /tmp/api.lock \
    && grep -E '^(numpy|scipy|pyarrow)==' /tmp/worker-cpu.lock > /tmp/diff.lock \
    && pip install --no-deps -r /tmp/diff.lock
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
USER 10001:10001
EXPOSE 8321
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["healthy.py", "http://127.0.0.1:8321/readyz"]
CMD ["python", "-m", "app.watched"]

# torch compiles with g++; tcmalloc is worth a tenth of the speed on a CPU and is preloaded by the engine where it is found.
FROM base AS worker-base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libtcmalloc-minimal4 \
    && rm -rf /var/lib/apt/lists/*

# Torch comes first, with its own dependencies. TORCH_INDEX names another index to take it from: one with CPU builds makes
# this image some gigabytes smaller.
FROM worker-base AS worker-cpu
ARG TORCH_INDEX=""
COPY requirements/torch.in /tmp/
RUN pip install ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} -r /tmp/torch.in
COPY requirements/api.lock requirements/worker-cpu.lock /tmp/
RUN pip install --no-deps -r /tmp/api.lock -r /tmp/worker-cpu.lock
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
USER 10001:10001
EXPOSE 8322
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["healthy.py", "http://127.0.0.1:8322/metrics", "hemostat_worker_redis_up 1.0"]
CMD ["python", "-m", "workers.main"]

# The CUDA libraries come with torch; the driver comes with NVIDIA's container runtime.
FROM worker-base AS worker-gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY requirements/torch.in /tmp/
RUN pip install -r /tmp/torch.in
COPY requirements/api.lock requirements/worker-gpu.lock /tmp/
RUN pip install --no-deps -r /tmp/api.lock -r /tmp/worker-gpu.lock
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
USER 10001:10001
EXPOSE 8322
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["healthy.py", "http://127.0.0.1:8322/metrics", "hemostat_worker_redis_up 1.0"]
CMD ["python", "-m", "workers.main"]

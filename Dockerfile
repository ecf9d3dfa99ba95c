# syntax=docker/dockerfile:1
# Images of the service. Targets: api, worker-cpu, worker-gpu, demo, proxy; the agent and the serving, shadow and
# verifying processes run in a worker image. The release of Python is the one that the tests run on.
ARG PYTHON=3.11-slim-trixie

# The project's own wheel: small, and the only layer that a change of the code touches.
FROM python:${PYTHON} AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY hemostat ./hemostat
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
RUN pip install --no-deps --require-hashes -r /tmp/api.lock \
    && sed -nE '/^(numpy|scipy|pyarrow)==/,/[^\\]$/p' /tmp/worker-cpu.lock > /tmp/diff.lock \
    && pip install --no-deps --require-hashes -r /tmp/diff.lock
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
USER 10001:10001
EXPOSE 8321
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["healthy.py", "http://127.0.0.1:8321/readyz"]
CMD ["python", "-m", "app.watched"]

# Debian's nginx: TLS for other machines (docs/compose.md).
FROM base AS proxy
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends nginx-light \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
EXPOSE 8443
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["healthy.py", "http://127.0.0.1:8080/livez"]
CMD ["nginx", "-e", "stderr", "-c", "/etc/hemostat/nginx.conf"]

# torch compiles with g++; tcmalloc is worth a tenth of the speed on a CPU and is preloaded by the engine where it is found.
FROM base AS worker-base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libtcmalloc-minimal4 \
    && rm -rf /var/lib/apt/lists/*

# Torch comes first: the largest layer, which changes least. TORCH_INDEX names another index to take it from: one with CPU
# builds makes this image some gigabytes smaller, and their hashes are in no lock. Three packages have no wheel; the locked
# setuptools builds them.
FROM worker-base AS worker-cpu
ARG TORCH_INDEX=""
COPY requirements/torch.in requirements/torch.lock /tmp/
RUN if [ -n "${TORCH_INDEX}" ]; then pip install --no-deps --index-url "${TORCH_INDEX}" -r /tmp/torch.in; \
    else pip install --no-deps --require-hashes -r /tmp/torch.lock; fi
COPY requirements/api.lock requirements/worker-cpu.lock /tmp/
RUN sed -nE '/^setuptools==/,/[^\\]$/p' /tmp/worker-cpu.lock > /tmp/build.lock \
    && pip install --no-deps --require-hashes -r /tmp/build.lock \
    && pip install --no-deps --require-hashes --no-build-isolation --use-pep517 -r /tmp/api.lock -r /tmp/worker-cpu.lock
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
USER 10001:10001
EXPOSE 8322
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["healthy.py", "http://127.0.0.1:8322/metrics", "hemostat_worker_redis_up 1.0"]
CMD ["python", "-m", "workers.main"]

# Makes the demo model's checkpoint and ends. What reads GGUF files is in no other image.
FROM worker-cpu AS demo
USER 0:0
COPY requirements/demo.lock /tmp/
RUN pip install --no-deps --require-hashes -r /tmp/demo.lock
USER 10001:10001
HEALTHCHECK NONE
CMD ["hemostat", "models", "import-gguf", "--demo"]

# The CUDA libraries come with torch; the driver comes with NVIDIA's container runtime.
FROM worker-base AS worker-gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY requirements/torch.lock /tmp/
RUN pip install --no-deps --require-hashes -r /tmp/torch.lock
COPY requirements/api.lock requirements/worker-gpu.lock /tmp/
RUN pip install --no-deps --require-hashes --no-build-isolation --use-pep517 -r /tmp/api.lock -r /tmp/worker-gpu.lock
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
# Packages that do not fit each other fail here, without a GPU.
RUN --mount=type=tmpfs,target=/tmp HOME=/tmp \
    python -c "from workers.engine.launch import load_vllm; load_vllm(); import vllm.v1.worker.gpu_worker"
USER 10001:10001
EXPOSE 8322
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["healthy.py", "http://127.0.0.1:8322/metrics", "hemostat_worker_redis_up 1.0"]
CMD ["python", "-m", "workers.main"]

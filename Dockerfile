# A detector behind HTTP, on a CPU, as a user without rights on a file system that is read-only.
#
# Not run here: it was written and read (hadolint), but no container has been built from it yet.
# Remove this note with the first one that answers.
#
#   docker build --tag retina .
#   docker run --rm --init --read-only --cap-drop ALL --security-opt no-new-privileges \
#       --stop-timeout 15 --memory 8g --publish 127.0.0.1:8000:8000 --env RETINA_API_KEY \
#       --volume "$PWD/best.safetensors:/detector.safetensors:ro" retina

FROM python:3.11-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# PyTorch without CUDA: a tenth of the size.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /source
RUN python -m venv /opt/retina
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs ./configs
COPY retina ./retina
RUN /opt/retina/bin/pip install --constraint constraints.txt ".[serve]" \
    && /opt/retina/bin/python -m compileall -q /opt/retina/lib

FROM python:3.11-slim-bookworm

COPY --from=build /opt/retina /opt/retina
ENV PATH=/opt/retina/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/nonexistent
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
# Without a key in RETINA_API_KEY it says so and ends: it is reached from elsewhere.
ENTRYPOINT ["retina", "serve", "--host", "0.0.0.0"]
CMD ["/detector.safetensors"]

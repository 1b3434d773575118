# sim-sled: simulated sleds, the model of Nexus, propolis-stub. docs/running.md says how it is run.
# Every command is a list of words: nothing in the image needs a shell once it is built.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY nexus_client nexus_client
COPY propolis_stub propolis_stub
COPY sim_sled sim_sled
COPY scenarios scenarios
COPY docs docs
RUN ["python3", "-m", "venv", "/opt/sim-sled"]
RUN ["/opt/sim-sled/bin/python", "-m", "pip", "install", "--no-cache-dir", "--quiet", "-c", "constraints.txt", ".[fast]"]
# what runs installs nothing
RUN ["/opt/sim-sled/bin/python", "-m", "pip", "uninstall", "--quiet", "--yes", "pip"]

FROM python:3.13-slim
COPY --from=build /opt/sim-sled /opt/sim-sled
# racks leave their addresses there; a read-only root needs nothing else that can be written
ENV XDG_RUNTIME_DIR=/tmp \
    PYTHONUNBUFFERED=1 \
    SIM_SLED_CONTROL=127.0.0.1:12300
USER 65532:65532
EXPOSE 12300
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/opt/sim-sled/bin/python", "-m", "sim_sled.healthcheck"]
ENTRYPOINT ["/opt/sim-sled/bin/sim-sled"]
CMD ["up", "--control", "127.0.0.1:12300"]

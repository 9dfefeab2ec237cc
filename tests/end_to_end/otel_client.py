"""Sends logs and spans with the OpenTelemetry Python SDK, the way an instrumented service does.

Arguments: transport (grpc or http), endpoint. Sixty-odd ordinary requests and one that fails in a way never seen.
"""

import logging
import sys

from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

transport, endpoint = sys.argv[1:3]
if transport == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    logs_exporter = OTLPLogExporter(endpoint=f"http://{endpoint}", insecure=True)
    span_exporter = OTLPSpanExporter(endpoint=f"http://{endpoint}", insecure=True)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    logs_exporter = OTLPLogExporter(endpoint=f"http://{endpoint}/v1/logs", compression=Compression.Gzip)
    span_exporter = OTLPSpanExporter(endpoint=f"http://{endpoint}/v1/traces", compression=Compression.Gzip)

resource = Resource.create({"service.name": "booking", "service.instance.id": "booking-0"})
tracer_provider = TracerProvider(resource=resource)
tracer_provider.add_span_processor(BatchSpanProcessor(span_exporter))
trace.set_tracer_provider(tracer_provider)
logger_provider = LoggerProvider(resource=resource)
logger_provider.add_log_record_processor(BatchLogRecordProcessor(logs_exporter))
logger = logging.getLogger("booking")
logger.propagate = False
logger.setLevel(logging.INFO)
logger.addHandler(LoggingHandler(logger_provider=logger_provider))
tracer = trace.get_tracer("booking")

N_REQUESTS = 90
ODD = 80
for idx in range(N_REQUESTS):
    with tracer.start_as_current_span("POST /bookings"):
        logger.info("booking %d requested by guest %d", idx, idx * 3)
        with tracer.start_as_current_span("SELECT rooms"):
            logger.info("found %d free rooms", idx % 7 + 1)
        if idx == ODD:
            logger.error("calendar shard corrupted: checksum mismatch in segment %d", idx)
        else:
            logger.info("booking %d confirmed in %d ms", idx, idx % 20 + 2)

# Both flush what is left; a lost batch makes the counts in the test come out wrong.
tracer_provider.shutdown()
logger_provider.shutdown()

"""What writing to the stream may raise, whichever transport it is."""

from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError

from pipeline.transport.log import LogError

WRITE_ERRORS = (LogError, OSError, ProducerSendError, KafkaError)

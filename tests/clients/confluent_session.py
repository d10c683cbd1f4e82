"""confluent-kafka with the local broker and registry: admin, Avro, transactions, read-committed groups.

Usage: confluent_session.py BROKERS REGISTRY_URL TOPIC
"""

import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

brokers, registry_url, topic = sys.argv[1:]
SCHEMA = '{"type":"record","name":"R","fields":[{"name":"n","type":"long"},{"name":"s","type":"string"}]}'


def fact(text):
    print(f"ok: {text}", flush=True)


admin = AdminClient({"bootstrap.servers": brokers})
admin.create_topics([NewTopic(topic, 3, 1, config={"retention.ms": "-1"})])[topic].result(20)
described = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)])
config = list(described.values())[0].result(20)
assert config["retention.ms"].value == "-1", config
fact("creates a topic and reads its configuration")

registry = SchemaRegistryClient({"url": registry_url})
serialize = AvroSerializer(registry, SCHEMA)
deserialize = AvroDeserializer(registry)
context = SerializationContext(topic, MessageField.VALUE)
incompatible = SCHEMA.replace('"long"', '"string"')
value = serialize({"n": 1, "s": "one"}, context)
assert value[0] == 0 and deserialize(value, context) == {"n": 1, "s": "one"}
try:
    AvroSerializer(registry, incompatible)({"n": "1", "s": "one"}, context)
    raise AssertionError("an incompatible schema was registered")
except SchemaRegistryError as error:
    assert error.http_status_code == 409, error
fact("registers a schema, reads it back, and is refused an incompatible one")

producer = Producer({"bootstrap.servers": brokers, "transactional.id": f"{topic}-tx", "linger.ms": 5})
producer.init_transactions(20)
for commit in (True, False, True):
    producer.begin_transaction()
    for number in range(50):
        record = {"n": number, "s": "kept" if commit else "aborted"}
        producer.produce(topic, key=str(number), value=serialize(record, context))
    producer.flush(20)
    producer.commit_transaction(20) if commit else producer.abort_transaction(20)
fact("commits two transactions and aborts one")


def consume(group, isolation, expected):
    consumer = Consumer({
        "bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest",
        "isolation.level": isolation, "enable.auto.commit": False,
        "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6000,
    })
    consumer.subscribe([topic])
    seen, deadline = [], time.time() + 30
    quiet = None
    while time.time() < deadline and (quiet is None or time.time() < quiet):
        message = consumer.poll(0.2)
        if message is not None:
            assert message.error() is None, message.error()
            seen.append(deserialize(message.value(), context)["s"])
        if len(seen) >= expected and quiet is None:
            quiet = time.time() + 1
    consumer.commit(asynchronous=False)
    consumer.close()
    return seen


kept = consume(f"{topic}-rc", "read_committed", 100)
assert kept == ["kept"] * 100, (len(kept), set(kept))
everything = consume(f"{topic}-ru", "read_uncommitted", 150)
assert sorted(set(everything)) == ["aborted", "kept"] and len(everything) == 150, len(everything)
fact("a read-committed group sees 100 rows, a read-uncommitted one 150")

committed = Consumer({"bootstrap.servers": brokers, "group.id": f"{topic}-rc"}).committed(
    [TopicPartition(topic, partition) for partition in range(3)], timeout=20
)
assert sum(partition.offset for partition in committed if partition.offset > 0) >= 150, committed
groups = [group.group_id for group in admin.list_consumer_groups().result(20).valid]
assert f"{topic}-rc" in groups, groups
fact("offsets are committed, the group is listed")

zombie = producer
successor = Producer({"bootstrap.servers": brokers, "transactional.id": f"{topic}-tx"})
successor.init_transactions(20)
try:
    zombie.begin_transaction()
    zombie.produce(topic, key="z", value=b"zombie")
    zombie.flush(10)
    zombie.commit_transaction(10)
    raise AssertionError("a fenced producer committed")
except Exception as error:  # noqa: BLE001
    assert "fenced" in str(error).lower() or "epoch" in str(error).lower(), error
fact("a second producer of the same transactional id fences the first")
print("session complete", flush=True)

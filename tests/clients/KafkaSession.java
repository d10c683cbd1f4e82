import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Apache Kafka's own Java client with the local broker, and the registry by the calls of the Java serialiser.
 *
 * <p>Usage: KafkaSession BROKERS REGISTRY_URL TOPIC. Prints `partition KEY N` as the Java partitioner decides it.
 */
public final class KafkaSession {
    private static final String SCHEMA = "{\"type\":\"record\",\"name\":\"J\",\"fields\":[{\"name\":\"n\",\"type\":\"long\"}]}";

    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[0], registry = arguments[1], topic = arguments[2];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            admin.createTopics(List.of(new NewTopic(topic, 4, (short) 1))).all().get();
            int partitions = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
            check(partitions == 4, "creates and describes a topic");
        }
        int id = register(registry, topic + "-value");

        Properties producing = new Properties();
        producing.putAll(Map.of("bootstrap.servers", brokers, "transactional.id", topic + "-java", "linger.ms", "5"));
        try (var producer = new KafkaProducer<>(producing, new StringSerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            for (boolean commit : new boolean[] {true, false, true}) {
                producer.beginTransaction();
                for (int number = 1; number <= 40; number++) {
                    String key = "MTR-TGC-%07d".formatted(number);
                    byte[] value = ByteBuffer.allocate(6).put((byte) 0).putInt(id).put((byte) (commit ? 2 : 4)).array();
                    var sent = producer.send(new ProducerRecord<>(topic, key, value)).get();
                    System.out.println("partition " + key + " " + sent.partition());
                }
                if (commit) producer.commitTransaction(); else producer.abortTransaction();
            }
        }
        check(true, "commits two transactions and aborts one");
        check(consume(brokers, topic, "read_committed", 80).equals(Map.of(2, 80)), "a read-committed group sees 80 records");
        check(consume(brokers, topic, "read_uncommitted", 120).equals(Map.of(2, 80, 4, 40)), "a read-uncommitted group sees 120");
        System.out.println("session complete");
    }

    /** Registers and reads back with the requests that KafkaAvroSerializer and its deserialiser make. */
    private static int register(String registry, String subject) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        String body = "{\"schema\":\"" + SCHEMA.replace("\"", "\\\"") + "\"}";
        HttpRequest post = HttpRequest.newBuilder(URI.create(registry + "/subjects/" + subject + "/versions?normalize=false"))
            .header("Content-Type", "application/vnd.schemaregistry.v1+json")
            .POST(HttpRequest.BodyPublishers.ofString(body)).build();
        HttpResponse<String> registered = client.send(post, HttpResponse.BodyHandlers.ofString());
        check(registered.statusCode() == 200, "registers a schema");
        int id = Integer.parseInt(registered.body().replaceAll("\\D", ""));
        HttpRequest get = HttpRequest.newBuilder(URI.create(registry + "/schemas/ids/" + id + "?fetchMaxId=false&subject=" + subject)).build();
        HttpResponse<String> found = client.send(get, HttpResponse.BodyHandlers.ofString());
        check(found.statusCode() == 200 && found.body().contains("\\\"J\\\""), "reads the schema back by its id");
        return id;
    }

    /** Counts records by their last byte. */
    private static Map<Integer, Integer> consume(String brokers, String topic, String isolation, int expected) {
        Properties consuming = new Properties();
        consuming.putAll(Map.of("bootstrap.servers", brokers, "group.id", topic + "-" + isolation, "isolation.level", isolation,
            "auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        Map<Integer, Integer> counts = new HashMap<>();
        try (var consumer = new KafkaConsumer<>(consuming, new StringDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            long deadline = System.currentTimeMillis() + 30_000;
            int seen = 0, quiet = 0;
            while (System.currentTimeMillis() < deadline && quiet < 5) {
                var records = consumer.poll(Duration.ofMillis(200));
                for (ConsumerRecord<String, byte[]> record : records) {
                    counts.merge((int) record.value()[5], 1, Integer::sum);
                    seen++;
                }
                quiet = seen >= expected && records.isEmpty() ? quiet + 1 : 0;
            }
            consumer.commitSync();
        }
        return counts;
    }

    private static void check(boolean holds, String fact) {
        if (!holds) {
            throw new AssertionError(fact);
        }
        System.out.println("ok: " + fact);
    }
}

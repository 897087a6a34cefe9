import com.google.gson.JsonElement;
import com.google.gson.JsonNull;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.standardwebhooks.Webhook;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.time.Instant;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Verifies webhook signatures with libraries that are not Postrider's: com.standardwebhooks and stripe-java; what they do
 * not know is judged by the JDK's own providers.
 *
 * <p>Reads one JSON object per line from standard input and answers each with one JSON line; ../../verify.py describes both.
 */
public final class Verify {
    private static final long TOLERANCE = 300;
    /** What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo. */
    private static final byte[] SPKI = HexFormat.of().parseHex("302a300506032b6570032100");

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JsonObject answer = new JsonObject();
            try {
                verify(JsonParser.parseString(line).getAsJsonObject());
                answer.addProperty("ok", true);
                answer.add("error", JsonNull.INSTANCE);
            } catch (Exception problem) { // whatever a library throws is its verdict
                answer.addProperty("ok", false);
                answer.addProperty("error", String.valueOf(problem.getMessage()));
            }
            out.println(answer);
        }
    }

    private static String text(JsonObject request, String name, String otherwise) {
        return request.has(name) ? request.get(name).getAsString() : otherwise;
    }

    private static void verify(JsonObject request) throws Exception {
        Map<String, String> headers = new HashMap<>();
        for (Map.Entry<String, JsonElement> one : request.getAsJsonObject("headers").entrySet()) {
            headers.put(one.getKey().toLowerCase(), one.getValue().getAsString());
        }
        byte[] body = Base64.getDecoder().decode(text(request, "body_base64", ""));
        String secret = text(request, "secret", "");
        String payload = new String(body, StandardCharsets.UTF_8);
        switch (text(request, "scheme", "")) {
            case "standard" -> {
                HashMap<String, List<String>> lists = new HashMap<>();
                headers.forEach((name, value) -> lists.put(name, List.of(value)));
                new Webhook(secret).verify(payload, lists);
            }
            case "ed25519" -> ed25519(secret, headers, body);
            case "stripe" -> com.stripe.net.Webhook.Signature.verifyHeader(
                    payload, headers.get("stripe-signature"), secret, TOLERANCE);
            case "github" -> hmac(
                    "HmacSHA256", secret, body, false, "sha256=", headers.getOrDefault("x-hub-signature-256", ""));
            case "hmac" -> {
                String algorithm = "Hmac" + text(request, "algorithm", "sha256").toUpperCase();
                byte[] before = text(request, "before", "").getBytes(StandardCharsets.UTF_8);
                byte[] after = text(request, "after", "").getBytes(StandardCharsets.UTF_8);
                byte[] signed = new byte[before.length + body.length + after.length];
                System.arraycopy(before, 0, signed, 0, before.length);
                System.arraycopy(body, 0, signed, before.length, body.length);
                System.arraycopy(after, 0, signed, before.length + body.length, after.length);
                String given = headers.getOrDefault(text(request, "header", "").toLowerCase(), "");
                boolean base64 = text(request, "encoding", "hex").equals("base64");
                hmac(algorithm, secret, signed, base64, text(request, "prefix", ""), given);
            }
            default -> throw new IllegalArgumentException("unknown scheme");
        }
    }

    private static void hmac(String algorithm, String secret, byte[] signed, boolean base64, String prefix, String given)
            throws Exception {
        Mac mac = Mac.getInstance(algorithm);
        mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), algorithm));
        byte[] code = mac.doFinal(signed);
        String text = base64 ? Base64.getEncoder().encodeToString(code) : HexFormat.of().formatHex(code);
        byte[] expected = (prefix + text).getBytes(StandardCharsets.UTF_8);
        if (!MessageDigest.isEqual(expected, given.getBytes(StandardCharsets.UTF_8))) {
            throw new SecurityException("no signature fits");
        }
    }

    private static void ed25519(String secret, Map<String, String> headers, byte[] body) throws Exception {
        byte[] key = Base64.getDecoder().decode(secret.replaceFirst("^whpk_", ""));
        byte[] encoded = new byte[SPKI.length + key.length];
        System.arraycopy(SPKI, 0, encoded, 0, SPKI.length);
        System.arraycopy(key, 0, encoded, SPKI.length, key.length);
        PublicKey pub = KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(encoded));
        String stamp = headers.get("webhook-timestamp");
        if (Math.abs(Instant.now().getEpochSecond() - Long.parseLong(stamp)) > TOLERANCE) {
            throw new SecurityException("the timestamp is too far from now");
        }
        byte[] start = (headers.get("webhook-id") + "." + stamp + ".").getBytes(StandardCharsets.UTF_8);
        for (String one : headers.getOrDefault("webhook-signature", "").split(" ")) {
            if (!one.startsWith("v1a,")) {
                continue;
            }
            Signature signature = Signature.getInstance("Ed25519");
            signature.initVerify(pub);
            signature.update(start);
            signature.update(body);
            if (signature.verify(Base64.getDecoder().decode(one.substring(4)))) {
                return;
            }
        }
        throw new SecurityException("no signature fits");
    }
}

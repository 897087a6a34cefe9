import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Map;
import java.util.TreeMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * Verifies a webhook's signature with the standard library (Java 17).
 *
 * <pre>
 *   java Verify.java standard "$SECRET" "webhook-id: …" "webhook-timestamp: …" "webhook-signature: …" &lt; body
 *   java Verify.java hmac "$SECRET" "X-Acme-HMAC-SHA-256: …" &lt; body
 * </pre>
 */
public class Verify {
    static final long TOLERANCE_SECONDS = 300;

    static byte[] sign(byte[] key, byte[]... parts) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        for (byte[] part : parts) {
            mac.update(part);
        }
        return mac.doFinal();
    }

    static boolean verifyStandard(String secret, Map<String, String> headers, byte[] body)
            throws GeneralSecurityException {
        byte[] key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
        String timestamp = headers.getOrDefault("webhook-timestamp", "");
        if (!timestamp.matches("[0-9]{1,12}")
                || Math.abs(Instant.now().getEpochSecond() - Long.parseLong(timestamp)) > TOLERANCE_SECONDS) {
            return false;
        }
        String start = headers.getOrDefault("webhook-id", "") + "." + timestamp + ".";
        byte[] digest = sign(key, start.getBytes(StandardCharsets.UTF_8), body);
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(digest)).getBytes(StandardCharsets.UTF_8);
        boolean genuine = false;
        for (String signature : headers.getOrDefault("webhook-signature", "").split(" ")) {
            genuine |= MessageDigest.isEqual(signature.getBytes(StandardCharsets.UTF_8), expected);
        }
        return genuine;
    }

    static boolean verifyHmac(String secret, String signature, byte[] body) throws GeneralSecurityException {
        String expected = HexFormat.of().formatHex(sign(secret.getBytes(StandardCharsets.UTF_8), body));
        return MessageDigest.isEqual(
                signature.getBytes(StandardCharsets.UTF_8), expected.getBytes(StandardCharsets.UTF_8));
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> headers = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
        for (int i = 2; i < arguments.length; i++) {
            String[] parts = arguments[i].split(": ", 2);
            headers.put(parts[0], parts[1]);
        }
        byte[] body = System.in.readAllBytes();
        boolean genuine = arguments[0].equals("standard")
                ? verifyStandard(arguments[1], headers, body)
                : verifyHmac(arguments[1], headers.getOrDefault("X-Acme-HMAC-SHA-256", ""), body);
        System.out.println(genuine ? "genuine" : "forged");
        System.exit(genuine ? 0 : 1);
    }
}

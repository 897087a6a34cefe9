// Verifies webhook signatures with libraries that are not Postrider's: those of Standard Webhooks and of Stripe; what
// they do not know is judged by Go's own crypto/ed25519 and crypto/hmac.
//
// Reads one JSON object per line from standard input and answers each with one JSON line; ../../verify.py describes both.
package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stripe/stripe-go/v82/webhook"
)

const tolerance = 5 * time.Minute

type request struct {
	Scheme, Secret, Header, Encoding, Prefix, Algorithm, Before, After string
	Headers                                                            map[string]string
	Body                                                               []byte `json:"body_base64"`
}

func verify(r request) error {
	header := http.Header{}
	for name, value := range r.Headers {
		header.Set(name, value)
	}
	switch r.Scheme {
	case "standard":
		hook, err := standardwebhooks.NewWebhook(r.Secret)
		if err != nil {
			return err
		}
		return hook.Verify(r.Body, header)
	case "ed25519":
		return verifyEd25519(r, header)
	case "stripe":
		return webhook.ValidatePayloadWithTolerance(r.Body, header.Get("Stripe-Signature"), r.Secret, tolerance)
	case "github":
		r.Header, r.Encoding, r.Prefix, r.Algorithm = "X-Hub-Signature-256", "hex", "sha256=", "sha256"
		return verifyHMAC(r, header)
	case "hmac":
		return verifyHMAC(r, header)
	}
	return fmt.Errorf("unknown scheme %q", r.Scheme)
}

func verifyEd25519(r request, header http.Header) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Secret, "whpk_"))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return errors.New("this is no public key")
	}
	stamp := header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > tolerance {
		return errors.New("the timestamp is too far from now")
	}
	signed := append([]byte(header.Get("webhook-id")+"."+stamp+"."), r.Body...)
	for _, one := range strings.Fields(header.Get("webhook-signature")) {
		code, isOurs := strings.CutPrefix(one, "v1a,")
		given, err := base64.StdEncoding.DecodeString(code)
		if isOurs && err == nil && ed25519.Verify(key, signed, given) {
			return nil
		}
	}
	return errors.New("no signature fits")
}

func verifyHMAC(r request, header http.Header) error {
	hashes := map[string]func() hash.Hash{
		"sha1": sha1.New, "": sha256.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
	}
	mac := hmac.New(hashes[r.Algorithm], []byte(r.Secret))
	mac.Write(bytes.Join([][]byte{[]byte(r.Before), r.Body, []byte(r.After)}, nil))
	text := hex.EncodeToString(mac.Sum(nil))
	if r.Encoding == "base64" {
		text = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	if !hmac.Equal([]byte(header.Get(r.Header)), []byte(r.Prefix+text)) {
		return errors.New("no signature fits")
	}
	return nil
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var r request
		err := json.Unmarshal(lines.Bytes(), &r)
		if err == nil {
			err = verify(r)
		}
		answer := map[string]any{"ok": err == nil, "error": nil}
		if err != nil {
			answer["error"] = err.Error()
		}
		text, _ := json.Marshal(answer)
		fmt.Println(string(text))
	}
}

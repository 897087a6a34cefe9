// Verifies a webhook's signature with the standard library.
//
//	go run verify.go standard "$SECRET" "webhook-id: …" "webhook-timestamp: …" "webhook-signature: …" < body
//	go run verify.go hmac "$SECRET" "X-Acme-HMAC-SHA-256: …" < body
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const tolerance = 5 * time.Minute

func sign(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, part := range parts {
		mac.Write(part)
	}
	return mac.Sum(nil)
}

func verifyStandard(secret string, header http.Header, body []byte) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return err
	}
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return errors.New("the timestamp is missing or not a number")
	}
	if age := time.Since(time.Unix(seconds, 0)); age.Abs() > tolerance {
		return errors.New("the timestamp is too far from now")
	}
	expected := sign(key, []byte(id+"."+timestamp+"."), body)
	for _, signature := range strings.Fields(header.Get("webhook-signature")) {
		given, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,"))
		if err == nil && strings.HasPrefix(signature, "v1,") && hmac.Equal(given, expected) {
			return nil
		}
	}
	return errors.New("no signature fits")
}

func verifyHMAC(secret, signature string, body []byte) error {
	expected := hex.EncodeToString(sign([]byte(secret), body))
	if !hmac.Equal([]byte(signature), []byte(expected)) {
		return errors.New("the signature does not fit")
	}
	return nil
}

func main() {
	scheme, secret, header := os.Args[1], os.Args[2], http.Header{}
	for _, line := range os.Args[3:] {
		name, value, _ := strings.Cut(line, ": ")
		header.Set(name, value)
	}
	body, err := io.ReadAll(os.Stdin)
	if err == nil && scheme == "standard" {
		err = verifyStandard(secret, header, body)
	} else if err == nil {
		err = verifyHMAC(secret, header.Get("X-Acme-HMAC-SHA-256"), body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "forged:", err)
		os.Exit(1)
	}
	fmt.Println("genuine")
}

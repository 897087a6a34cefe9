// A receiver of CloudEvents that is not Postrider's: the CNCF's SDK, with its own answer to the OPTIONS request that
// asks whether it wants the events.
//
//	cloudevents '{"origins": ["hooks.example.com"], "rate": 120}'
//
// Prints {"url": "http://127.0.0.1:<port>/"}, and for each line on standard input {"ids": [<of events that arrived>]}.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

type settings struct {
	Origins []string `json:"origins"`
	Rate    int      `json:"rate"`
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var asked settings
	fail(json.Unmarshal([]byte(os.Args[1]), &asked))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	protocol, err := cloudevents.NewHTTP(
		cehttp.WithListener(listener),
		cehttp.WithDefaultOptionsHandlerFunc([]string{http.MethodPost}, asked.Rate, asked.Origins, false),
	)
	fail(err)
	client, err := cloudevents.NewClient(protocol)
	fail(err)

	var lock sync.Mutex
	ids := []string{}
	go func() {
		fail(client.StartReceiver(context.Background(), func(event cloudevents.Event) {
			lock.Lock()
			defer lock.Unlock()
			ids = append(ids, event.ID())
		}))
	}()
	answers := json.NewEncoder(os.Stdout)
	fail(answers.Encode(map[string]string{"url": "http://" + listener.Addr().String() + "/"}))
	// Ends with whoever started it.
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		lock.Lock()
		fail(answers.Encode(map[string][]string{"ids": ids}))
		lock.Unlock()
	}
}

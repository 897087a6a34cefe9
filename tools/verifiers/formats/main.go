// Judges bodies of ready formats with the Go models of the services; ../formats.py describes the two lines.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"github.com/PagerDuty/go-pagerduty"
	"github.com/go-openapi/strfmt"
	"github.com/prometheus/alertmanager/api/v2/models"
	"github.com/prometheus/common/model"
)

// strict reads JSON into a model that must know every member.
func strict(body []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// read takes alerts as Alertmanager's handler does, and fails when it would leave something out.
func read(body []byte) (models.PostableAlerts, error) {
	var alerts models.PostableAlerts
	var given, taken []map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(body, &alerts), json.Unmarshal(body, &given)); err != nil {
		return nil, err
	}
	written, err := json.Marshal(alerts)
	if err == nil {
		err = json.Unmarshal(written, &taken)
	}
	for index := range given {
		for name := range given[index] {
			if _, known := taken[index][name]; !known {
				return nil, fmt.Errorf("%q is unknown to the model", name)
			}
		}
	}
	return alerts, err
}

func alertmanager(body []byte) error {
	alerts, err := read(body)
	if err != nil {
		return err
	}
	if len(alerts) == 0 {
		return errors.New("no alert")
	}
	if err := alerts.Validate(strfmt.Default); err != nil {
		return err
	}
	for _, alert := range alerts {
		// As Alertmanager's own handler goes on: empty labels are dropped, the rest is checked.
		labels := model.LabelSet{}
		for name, value := range alert.Labels {
			if !model.LegacyValidation.IsValidLabelName(name) {
				return fmt.Errorf("label %q is refused by Alertmanagers without UTF-8 names", name)
			}
			if value != "" {
				labels[model.LabelName(name)] = model.LabelValue(value)
			}
		}
		if labels[model.AlertNameLabel] == "" {
			return errors.New("the alert has no name")
		}
		annotations := model.LabelSet{}
		for name, value := range alert.Annotations {
			annotations[model.LabelName(name)] = model.LabelValue(value)
		}
		whole := model.Alert{Labels: labels, Annotations: annotations, StartsAt: time.Time(alert.StartsAt)}
		if err := whole.Validate(); err != nil {
			return err
		}
	}
	return nil
}

func pagerDuty(body []byte) error {
	var event pagerduty.V2Event
	if err := strict(body, &event); err != nil {
		return err
	}
	// https://developer.pagerduty.com/docs/events-api-v2/trigger-events/
	switch payload := event.Payload; {
	case len(body) > 512*1024:
		return errors.New("the event is over 512 KB")
	case event.RoutingKey == "" || event.Action != "trigger":
		return errors.New("no routing key, or not a trigger")
	case utf8.RuneCountInString(event.DedupKey) > 255:
		return errors.New("dedup_key is over 255 characters")
	case payload == nil || payload.Summary == "" || payload.Source == "":
		return errors.New("no payload, summary or source")
	case utf8.RuneCountInString(payload.Summary) > 1024:
		return errors.New("summary is over 1,024 characters")
	case payload.Severity != "critical" && payload.Severity != "error" && payload.Severity != "warning" &&
		payload.Severity != "info":
		return fmt.Errorf("there is no severity %q", payload.Severity)
	default:
		_, err := time.Parse(time.RFC3339, payload.Timestamp)
		return err
	}
}

func judge(line []byte) error {
	var request struct {
		Service string `json:"service"`
		Body    []byte `json:"body_base64"`
	}
	if err := json.Unmarshal(line, &request); err != nil {
		return err
	}
	switch request.Service {
	case "Alertmanager":
		return alertmanager(request.Body)
	case "PagerDuty":
		return pagerDuty(request.Body)
	default:
		return fmt.Errorf("unknown service %q", request.Service)
	}
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 16<<20)
	output := json.NewEncoder(os.Stdout)
	for input.Scan() {
		answer := map[string]any{"ok": true, "error": nil}
		if err := judge(input.Bytes()); err != nil {
			answer = map[string]any{"ok": false, "error": err.Error()}
		}
		if err := output.Encode(answer); err != nil {
			os.Exit(1)
		}
	}
	if err := input.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

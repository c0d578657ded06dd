package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// longest is how long a call may take; a Velero server would wait for ever.
const longest = 30 * time.Second

// raw hands messages through as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }

func (raw) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = append([]byte(nil), data...)
	return nil
}

// call is what came of one.
type call struct {
	Code     uint32            `json:"code"`
	Message  string            `json:"message"`
	Details  map[string]string `json:"details"`  // by type, base64
	Texts    map[string]string `json:"texts"`    // fields of the answer that are texts, by number
	Size     int               `json:"size"`     // of the answer, in bytes
	Echoed   bool              `json:"echoed"`   // field 1 of the answer is field 2 of the question
	Progress map[string]string `json:"progress"` // field 1 of an answer of Progress
}

func invoke(connection *grpc.ClientConn, method string, question []byte) ([]byte, error) {
	within, done := context.WithTimeout(context.Background(), longest)
	defer done()
	var answer []byte
	err := connection.Invoke(within, method, &question, &answer, grpc.ForceCodec(raw{}))
	return answer, err
}

// message writes fields of bytes: 1, 2, 3 and so on; an empty one is left out.
func message(fields ...string) []byte {
	var out []byte
	for at, field := range fields {
		if field != "" {
			out = protowire.AppendTag(out, protowire.Number(at+1), protowire.BytesType)
			out = protowire.AppendString(out, field)
		}
	}
	return out
}

// fields reads a message: bytes as they are, numbers in decimal; of a repeated field the last.
func fields(data []byte) (map[string]string, error) {
	found := map[string]string{}
	err := each(data, func(number protowire.Number, value string) error {
		found[fmt.Sprint(number)] = value
		return nil
	})
	return found, err
}

func each(data []byte, see func(protowire.Number, string) error) error {
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return protowire.ParseError(size)
		}
		data = data[size:]
		value := ""
		switch kind {
		case protowire.BytesType:
			var held []byte
			held, size = protowire.ConsumeBytes(data)
			value = string(held)
		case protowire.VarintType:
			var held uint64
			held, size = protowire.ConsumeVarint(data)
			value = fmt.Sprint(int64(held))
		default:
			return fmt.Errorf("field %d is of type %d", number, kind)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		data = data[size:]
		if err := see(number, value); err != nil {
			return err
		}
	}
	return nil
}

type identifier struct {
	Command string `json:"command"`
	Kind    string `json:"kind"`
	Name    string `json:"name"`
}

func list(connection *grpc.ClientConn) ([]identifier, error) {
	answer, err := invoke(connection, "/generated.PluginLister/ListPlugins", nil)
	if err != nil {
		return nil, err
	}
	found := []identifier{}
	err = each(answer, func(_ protowire.Number, one string) error {
		plugin, err := fields([]byte(one))
		found = append(found, identifier{plugin["1"], plugin["2"], plugin["3"]})
		return err
	})
	return found, err
}

// try calls once and keeps what came of it.
func try(connection *grpc.ClientConn, method string, question ...string) *call {
	answer, err := invoke(connection, method, message(question...))
	said := status.Convert(err)
	made := &call{Code: uint32(said.Code()), Message: said.Message(), Details: map[string]string{}, Size: len(answer)}
	for _, detail := range said.Proto().GetDetails() {
		made.Details[detail.TypeUrl] = base64.StdEncoding.EncodeToString(detail.Value)
	}
	read, err := fields(answer)
	if err != nil {
		made.Message = fmt.Sprintf("the answer is no message: %v", err)
		return made
	}
	if len(question) > 1 {
		made.Echoed = read["1"] == question[1]
	}
	if strings.HasSuffix(method, "/Progress") {
		made.Progress, _ = fields([]byte(read["1"]))
	}
	if made.Size < 4096 {
		made.Texts = read
	}
	return made
}

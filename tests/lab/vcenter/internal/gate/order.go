package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/xml"
)

// checkOrder refuses a request whose parameters are unknown or not in the
// declared order: the simulator's decoder does not mind, a real server does.
// Only the method's own parameters are looked at, not what is inside them.
func checkOrder(namespace string, method *simulator.Method, body []byte) error {
	names, err := parameters(body, method.Name)
	if err != nil {
		return err
	}
	declared := fields(reflect.TypeOf(method.Body).Elem())
	next := 0
	for _, name := range names {
		at := indexFrom(declared, name, next)
		if at < 0 {
			if indexFrom(declared, name, 0) < 0 {
				return fmt.Errorf("%s of %s has no parameter %q", method.Name, namespace, name)
			}
			return fmt.Errorf("parameter %q of %s stands in the wrong place; the order is %s", name, method.Name, strings.Join(declared, ", "))
		}
		next = at // not past it: arrays repeat their element
	}
	return nil
}

func indexFrom(list []string, name string, from int) int {
	for i := from; i < len(list); i++ {
		if list[i] == name {
			return i
		}
	}
	return -1
}

// fields are a type's element names, in the order of its declaration.
func fields(kind reflect.Type) []string {
	var names []string
	for field := range kind.NumField() {
		tag, _, _ := strings.Cut(kind.Field(field).Tag.Get("xml"), ",")
		switch {
		case kind.Field(field).Anonymous && tag == "":
			names = append(names, fields(kind.Field(field).Type)...)
		case tag != "" && tag != "-":
			parts := strings.Fields(tag)
			names = append(names, parts[len(parts)-1])
		}
	}
	return names
}

// parameters are the names of the elements directly below the method's.
func parameters(body []byte, method string) ([]string, error) {
	decoder := xml.NewDecoder(bytes.NewReader(body))
	var names []string
	depth, inside := 0, 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		switch element := token.(type) {
		case xml.StartElement:
			depth++
			switch {
			case inside == 0 && depth == 3 && element.Name.Local == method:
				inside = depth
			case inside > 0 && depth == inside+1:
				names = append(names, element.Name.Local)
			}
		case xml.EndElement:
			if depth == inside {
				return names, nil
			}
			depth--
		}
	}
}

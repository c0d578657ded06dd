package gate

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// answer holds the simulator's answer back until it is known what to do with it.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newAnswer() *answer { return &answer{header: http.Header{}, status: http.StatusOK} }

func (a *answer) Header() http.Header            { return a.header }
func (a *answer) WriteHeader(status int)         { a.status = status }
func (a *answer) Write(part []byte) (int, error) { return a.body.Write(part) }

func (a *answer) copyTo(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", `text/xml; charset="utf-8"`)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes())
}

const (
	beforeFault = xml.Header + `<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault>` +
		`<faultcode>ServerFaultCode</faultcode><faultstring>`
	beforeDetail = `</faultstring><detail>`
	afterFault   = `</detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>`
)

// writeFault answers with a SOAP fault.
func writeFault(w http.ResponseWriter, namespace, message string, fault types.BaseMethodFault) {
	kind := reflect.TypeOf(fault).Elem().Name()
	if message == "" {
		message = kind
	}
	var text, detail bytes.Buffer
	_ = xml.EscapeText(&text, []byte(message))
	encoder := xml.NewEncoder(&detail)
	err := encoder.EncodeElement(fault, xml.StartElement{
		Name: xml.Name{Local: kind + "Fault"},
		Attr: []xml.Attr{
			{Name: xml.Name{Local: "xmlns"}, Value: "urn:" + faultNamespace(namespace, kind)},
			{Name: xml.Name{Local: "xsi:type"}, Value: kind},
		},
	})
	if err != nil {
		log.Printf("cannot write fault %s: %s", kind, err)
	}
	w.Header().Set("Content-Type", `text/xml; charset="utf-8"`)
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = io.WriteString(w, beforeFault+text.String()+beforeDetail+detail.String()+afterFault)
}

// faultNamespace is where a fault is defined: most are vim25's, whoever raises them.
func faultNamespace(namespace, kind string) string {
	if strings.HasPrefix(kind, "Vslm") || strings.HasPrefix(kind, "Cns") {
		return namespace
	}
	return "vim25"
}

package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/soap"
)

// post sends a body as any client would, with the session's cookie when there is one.
func (l *lab) post(path, action, cookie, header, body string) (int, string) {
	l.t.Helper()
	envelope := `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">` + header + `<soapenv:Body>` + body + `</soapenv:Body></soapenv:Envelope>`
	request, err := http.NewRequest("POST", l.vsphere.URL+path, strings.NewReader(envelope))
	must(l.t, err)
	request.Header.Set("SOAPAction", action)
	if cookie != "" {
		request.Header.Set("Cookie", soap.SessionCookieName+`="`+cookie+`"`)
	}
	response, err := l.vsphere.Client().Do(request)
	must(l.t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(l.t, err)
	return response.StatusCode, string(text)
}

func (c *client) cookie() string { return c.SessionCookie().Value }

func TestLoginCookieHasTheFormOfARealOne(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	envelope := `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><Login xmlns="urn:vim25">` +
		`<_this type="SessionManager">SessionManager</_this><userName>` + user + `</userName><password>` + escape.Replace(password) + `</password></Login></e:Body></e:Envelope>`
	response, err := lab.vsphere.Client().Post(lab.vsphere.URL+"/sdk", "text/xml", strings.NewReader(envelope))
	must(t, err)
	defer response.Body.Close()
	cookie := response.Header.Get("Set-Cookie")
	if !strings.HasPrefix(cookie, soap.SessionCookieName+`="`) || !strings.Contains(cookie, `"; Path=/; HttpOnly; Secure`) {
		t.Errorf("the cookie is %s", cookie)
	}
}

func TestRequestsThatARealServerRefuses(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	vslmHeader := `<soapenv:Header><vcSessionCookie>` + c.cookie() + `</vcSessionCookie></soapenv:Header>`
	snapshot := func(parameters string) string {
		return `<VslmCreateSnapshot_Task xmlns="urn:vslm"><_this type="VslmVStorageObjectManager">VStorageObjectManager</_this>` +
			parameters + `</VslmCreateSnapshot_Task>`
	}
	const (
		id          = `<id><id>11111111-2222-3333-4444-555555555555</id></id>`
		description = `<description>d</description>`
		now         = `<CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this></CurrentTime>`
		query       = `<CnsQueryVolume xmlns="urn:vsan"><_this type="CnsVolumeManager">cns-volume-manager</_this><filter></filter></CnsQueryVolume>`
		root        = `<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet><propSet><type>Folder</type>` +
			`<pathSet>name</pathSet></propSet><objectSet><obj type="Folder">group-d1</obj></objectSet></specSet><options></options></RetrievePropertiesEx>`
	)
	cases := []struct {
		situation, path, action, cookie, header, body string
		status                                        int
		fault                                         string
	}{
		{"in order", "/vslm/sdk", "urn:vslm/", "", vslmHeader, snapshot(id + description), 200, ""},
		{"out of order", "/vslm/sdk", "urn:vslm/", "", vslmHeader, snapshot(description + id), 500, "InvalidRequest"},
		{"unknown parameter", "/vslm/sdk", "urn:vslm/", "", vslmHeader, snapshot(id + description + "<snapshotId>x</snapshotId>"), 500, "InvalidRequest"},
		{"quoted cookie in the header", "/vslm/sdk", "urn:vslm/", "", strings.Replace(vslmHeader, c.cookie(), `"`+c.cookie()+`"`, 1), snapshot(id + description), 500, "NotAuthenticated"},
		{"our release", "/sdk", "urn:vim25/8.0.3.0", c.cookie(), "", now, 200, ""},
		{"an older release", "/sdk", "urn:vim25/7.0.1.0", c.cookie(), "", now, 200, ""},
		{"a newer release", "/sdk", "urn:vim25/9.0.0.0", c.cookie(), "", now, 500, "InvalidRequest"},
		{"another service's action", "/vslm/sdk", "urn:vim25/8.0.3.0", "", vslmHeader, snapshot(id + description), 500, "InvalidRequest"},
		{"filter without its type", "/vsanHealth", "urn:vsan/vSAN 7.0U3", c.cookie(), "", query, 500, "InvalidArgument"},
		{"properties", "/sdk", "urn:vim25/8.0.3.0", c.cookie(), "", root, 200, ""},
		{"properties without a session", "/sdk", "urn:vim25/8.0.3.0", "", "", root, 500, "NotAuthenticated"},
		{"no method at all", "/sdk", "urn:vim25/8.0.3.0", c.cookie(), "", "<Nonsense/>", 500, "InvalidRequest"},
	}
	for _, test := range cases {
		status, text := lab.post(test.path, test.action, test.cookie, test.header, test.body)
		if status != test.status || (test.fault != "" && !strings.Contains(text, fmt.Sprintf(`xsi:type="%s"`, test.fault))) {
			t.Errorf("%s: %d %s", test.situation, status, text)
		}
	}
	// Nothing above may have left a lock held.
	c.volume("pvc-after", 1)
}

func TestScriptOfTheDiskLibraryIsKeptWhole(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	lab.tell("PUT", "/vddk", json.RawMessage(`{"rules":[{"disk":"d","function":"Read","atOffset":1048576,"count":1,"action":"fail","code":14011}]}`), nil)
	for _, wrong := range []string{`{"rules":[{"function":"Seek","action":"fail","code":1}]}`, `{"rules":[{"function":"Read","action":"fail"}]}`, `{"rule":[]}`} {
		if status, _ := lab.ask("PUT", "/vddk", json.RawMessage(wrong)); status != 400 {
			t.Errorf("%s: status %d", wrong, status)
		}
	}
	text, err := os.ReadFile(filepath.Join(lab.store, "vddk.json"))
	must(t, err)
	var script struct {
		Rules []struct {
			Disk, Function, Action string
			AtOffset               *int64
			Code                   int
		}
	}
	must(t, json.Unmarshal(text, &script))
	if len(script.Rules) != 1 || *script.Rules[0].AtOffset != mib || script.Rules[0].Code != 14011 {
		t.Errorf("the file holds %s", text)
	}
	if _, shown := lab.ask("GET", "/vddk", nil); string(shown) != string(text) {
		t.Errorf("the control address shows %s", shown)
	}
}

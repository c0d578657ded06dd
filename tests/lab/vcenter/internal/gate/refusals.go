package gate

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"

	"lab.velero-plugin-for-vsphere/vcenter/internal/double"
)

var errNoMethod = errors.New("the body holds no method that this server knows")

// refused is a call that does not get through the gate.
type refused struct {
	message string
	fault   types.BaseMethodFault
}

// withoutSession may be called before logging in.
var withoutSession = map[string]bool{
	"Login": true, "LoginByToken": true, "LoginExtensionByCertificate": true, "CloneSession": true,
	"RetrieveServiceContent": true,
}

// anonymous says whether a call may be made before logging in. Properties may
// be read only of the objects with which one logs in.
func (c *call) anonymous() bool {
	var specs []types.PropertyFilterSpec
	switch request := c.method.Body.(type) {
	case *types.RetrieveProperties:
		specs = request.SpecSet
	case *types.RetrievePropertiesEx:
		specs = request.SpecSet
	default:
		return withoutSession[c.method.Name]
	}
	for _, spec := range specs {
		for _, object := range spec.ObjectSet {
			if object.Obj.Type != "SessionManager" && object.Obj.Type != "ServiceInstance" {
				return false
			}
		}
	}
	return true
}

// refusal says why a call is not let through; nil when it is.
func (c *call) refusal(r *http.Request, body []byte) *refused {
	if err := c.checkAction(r.Header.Get("SOAPAction")); err != nil {
		return &refused{err.Error(), new(types.InvalidRequest)}
	}
	if c.session == "" && !c.anonymous() {
		return &refused{"The session is not authenticated.", &types.NotAuthenticated{
			NoPermission: types.NoPermission{Object: &c.method.This, PrivilegeId: "System.View"},
		}}
	}
	if err := checkOrder(c.namespace, c.method, body); err != nil {
		return &refused{err.Error(), new(types.InvalidRequest)}
	}
	return nil
}

// checkAction holds the SOAPAction against the endpoint: a release newer than
// the server's is refused, and so is another service's namespace, except that
// a task of the storage service is read on /sdk in that service's name.
func (c *call) checkAction(header string) error {
	action := strings.Trim(header, `"`)
	urn, version, _ := strings.Cut(action, "/")
	allowed := map[string]bool{"": true, "urn:" + c.namespace: true}
	if c.namespace == vim25.Namespace {
		allowed["urn:vsan"] = true
	}
	if !allowed[urn] {
		return fmt.Errorf("SOAPAction %q is not for this endpoint", header)
	}
	// govmomi asks for the content in the newest release it knows, and real servers answer that.
	if c.method.Name != "RetrieveServiceContent" && urn == "urn:"+vim25.Namespace && newer(version, double.APIVersion) {
		return fmt.Errorf("unsupported version URI %q", action)
	}
	return nil
}

// newer compares releases like 8.0.3.0; other words are never newer.
func newer(a, b string) bool {
	left, right := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(left), len(right)) {
		x, err := strconv.Atoi(left[i])
		if err != nil {
			return false
		}
		y, err := strconv.Atoi(right[i])
		if err != nil || x < y {
			return false
		}
		if x > y {
			return true
		}
	}
	return false
}

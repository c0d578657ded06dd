package tests

import (
	"testing"

	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// A preflight that asks for privileges must hear of the one that is lacking,
// on the object where it is lacking, and must ask for its own session.
func TestAPrivilegeThatWasTakenAwayIsLacking(t *testing.T) {
	t.Parallel()
	lab := start(t, t.TempDir())
	c := lab.login()
	current, err := session.NewManager(c.Client).UserSession(background(t))
	must(t, err)
	root := c.ServiceContent.RootFolder
	granted := func(privilege string) bool {
		request := types.HasPrivilegeOnEntities{Entity: []types.ManagedObjectReference{root}, SessionId: current.Key, PrivId: []string{privilege}}
		request.This = *c.ServiceContent.AuthorizationManager
		answer, err := methods.HasPrivilegeOnEntities(background(t), c.Client, &request)
		must(t, err)
		return answer.Returnval[0].PrivAvailability[0].IsGranted
	}
	if !granted("Global.Licenses") {
		t.Error("nothing was taken away yet")
	}
	lab.tell("POST", "/lacks", []map[string]string{{"privilege": "Global.Licenses", "entity": root.Value}, {"privilege": "X", "entity": "vm-1"}}, nil)
	if granted("Global.Licenses") || !granted("X") {
		t.Error("what was taken away on one object is lacking there, and only there")
	}
	other := types.HasPrivilegeOnEntities{Entity: []types.ManagedObjectReference{root}, SessionId: "another", PrivId: []string{"X"}}
	other.This = *c.ServiceContent.AuthorizationManager
	if _, err := methods.HasPrivilegeOnEntities(background(t), c.Client, &other); err == nil {
		t.Error("another session's privileges were told")
	}
}

//! The grammar as users of the CSI driver know it.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use secrecy::ExposeSecret as _;

use super::*;

fn center(body: &str) -> String {
    format!("[Global]\ncluster-id = \"lab\"\n[VirtualCenter \"vc.lab\"]\nuser = \"svc@vsphere.local\"\n{body}\n")
}

fn password_of(line: &str) -> Result<String, ParseError> {
    parse(&center(line)).map(|centers| centers[0].password.expose_secret().to_owned())
}

#[test]
fn the_example_of_the_csi_documentation_is_read() {
    let text = "[Global]\ncluster-id = \"lab-cluster\"\n[VirtualCenter \"vc.lab.example\"]\n\
                user = \"svc@vsphere.local\"\npassword = \"p\\\\w\\\"d\"\nport = \"443\"\n";
    let centers = parse(text).unwrap();
    let [vc] = centers.as_slice() else { panic!("one vCenter") };
    assert_eq!((vc.host.as_str(), vc.port, vc.user.as_str()), ("vc.lab.example", 443, "svc@vsphere.local"));
    assert_eq!(vc.password.expose_secret(), "p\\w\"d");
    assert_eq!(vc.cluster_id.as_deref(), Some("lab-cluster"));
    assert_eq!((vc.insecure, &vc.ca_file, &vc.thumbprint), (false, &None, &None));
}

#[test]
fn a_password_is_read_as_the_csi_driver_reads_it() {
    let cases = [
        (r#"password = plain"#, "plain"),
        (r#"password=   two words   "#, "two words"),
        (r#"password = "keeps ; and # and blanks  ""#, "keeps ; and # and blanks  "),
        (r#"password = cut ; comment"#, "cut"),
        (r#"password = cut# comment"#, "cut"),
        (r#"password = a" b "c"#, "a b c"),
        (r#"password = \"literal\""#, "\"literal\""),
        (r#"password = "tab\tnew\nline""#, "tab\tnew\nline"),
        ("password = two\\\nlines", "twolines"),
        ("password = \"crlf\"\r", "crlf"),
        ("PassWord = \"any case\"", "any case"),
        ("password = \"first\"\npassword = \"last wins\"", "last wins"),
        (r#"password = """#, ""),
        (r#"password = "ünï=]["  "#, "ünï=]["),
    ];
    for (line, want) in cases {
        assert_eq!(password_of(line).as_deref(), Ok(want), "{line}");
    }
}

#[test]
fn an_error_names_its_line_and_what_was_expected_but_never_the_value() {
    let head = "[VirtualCenter \"vc\"]\nuser = \"u\"\n";
    let cases = [
        ("password = \"hunter\\'2\"", 3, "no other escape"),
        ("password = hunter\\2", 3, "backslash"),
        ("password = \"hunter2", 3, "ends the value on the same line"),
        ("password", 3, "needs a value"),
        ("password hunter2", 3, "`=`"),
        ("password = \"hunter2\"\n\n[Broken", 5, "`]`"),
        ("password = \"hunter2\"\n[X \"\"]", 4, "between the double quotes"),
        ("password = \"hunter2\"\n[X \"a\\nb\"]", 4, "no other escape"),
        ("password = \"hunter2\"\n[X] trailing", 4, "end of the line"),
        ("password = \"hunter2\"\n9lives = 1", 4, "beginning with a letter"),
        ("password = \"hunter2\"\ninsecure-flag = maybe", 4, "one of true"),
        ("password = \"hunter2\"\ninsecure_flag = true", 4, "`_` is not allowed in it; `insecure-flag` may be meant"),
        ("password = \"hunter2\"\nCA_File = x", 4, "`ca-file` may be meant"),
        ("password = \"hunter2\"\nhunter_2 = true", 4, "`_` is not allowed"),
        ("password = \"hunter2\"\nport = 70000", 4, "65535"),
        ("password = \"hunter2\"\nport = 0", 4, "65535"),
        ("password = \"hunter2\"\nthumbprint = AA:BB", 4, "thumbprint"),
        ("password = \"hunter2\"\n[VirtualCenter]", 4, "address"),
        ("password = \"hunter2\"\n[VirtualCenter \"other\"]\nuser = u", 4, "`password`"),
    ];
    for (body, line, expected) in cases {
        let error = parse(&format!("{head}{body}")).unwrap_err();
        assert_eq!(error.line, line, "{body}: {error}");
        assert!(error.to_string().contains(expected), "{body}: {error}");
        assert!(!error.to_string().contains("unter"), "{error}");
    }
    let cases = [
        (
            "[Global]\ncluster-id = c\n\n[VirtualCentre \"vc\"]\nuser = u\npassword = hunter2\n",
            4,
            "`VirtualCenter` may be meant",
        ),
        (
            "[VirtualCenter \"vc\"]\nusr = hunter\npassword = hunter2\n",
            1,
            "`user` in this [VirtualCenter] section or in [Global]; `usr` on line 2 may be meant",
        ),
        ("[Global]\nPasword = hunter2\n[VirtualCenter \"vc\"]\nuser = u\n", 3, "`Pasword` on line 2 may be meant"),
    ];
    for (text, line, expected) in cases {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.to_string().contains(expected) && !error.to_string().contains("hunter"), "{error}");
    }
    assert!(parse("").unwrap_err().to_string().contains("there is none"));
    assert!(parse("user = u").unwrap_err().to_string().contains("before any variable"));
    assert_eq!(parse("[VirtualCenter \"vc\"]\npassword = p").unwrap_err().line, 1, "the section without a user");
}

#[test]
fn several_vcenters_come_in_their_order_and_global_fills_what_they_leave_out() {
    let text = "; comment\n[Global]\nport = 8443\ninsecure-flag = true\nca-file = /etc/ca.pem\n\
                [NetPermissions \"A\"]\nips = \"*\"\nunknown\n\
                [VirtualCenter \"zeta\"]\nuser = a\npassword = b\nunknown = \"x\"\n\
                [virtualcenter \"[fd00::10]\"]\nuser = c\npassword = d\nport = 9443\ninsecure-flag = NO\n\
                ca-file = /other.pem\n[VirtualCenter \"zeta\"]\nuser = again\n";
    let centers = parse(text).unwrap();
    let [zeta, six] = centers.as_slice() else { panic!("{}", centers.len()) };
    assert_eq!((zeta.host.as_str(), zeta.user.as_str(), zeta.port, zeta.insecure), ("zeta", "again", 8443, true));
    assert_eq!(zeta.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!((six.host.as_str(), six.port, six.insecure), ("[fd00::10]", 9443, false));
    assert_eq!(six.ca_file.as_deref(), Some(Path::new("/other.pem")));
}

#[test]
fn the_strictest_way_to_trust_counts() {
    let pin = "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD";
    let read = |path: &Path| match path.to_str() {
        Some("/ca.pem") => Ok("PEM".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let trust = |body: &str| {
        let center = parse(&center(&format!("password = hunter2\n{body}"))).unwrap().remove(0);
        assert!(!format!("{center:?}").contains("hunter2"));
        center.config(read).map(|config| config.trust).map_err(|e| e.to_string())
    };
    assert_eq!(trust(""), Ok(Trust::SystemRoots));
    assert_eq!(trust("insecure-flag"), Ok(Trust::Insecure), "alone it means true");
    assert_eq!(trust("insecure-flag = \"false\""), Ok(Trust::SystemRoots));
    assert_eq!(trust("insecure-flag = 1\nca-file = /ca.pem"), Ok(Trust::CaFile("PEM".to_owned())));
    let pinned = Ok(Trust::Thumbprint(pin.parse().unwrap()));
    assert_eq!(trust(&format!("insecure-flag = on\nca-file = /ca.pem\nthumbprint = {pin}")), pinned);
    assert_eq!(trust("ca-file = \"\"\nthumbprint = \"\"\nport = \"\""), Ok(Trust::SystemRoots), "empty is not set");
    let missing = trust("insecure-flag = true\nca-file = /gone.pem").unwrap_err();
    assert!(missing.contains("/gone.pem"), "a CA file that is missing must not end in no check at all: {missing}");
}

#[test]
fn a_section_whose_name_is_no_address_is_named_with_its_line_and_keeps_no_other_one_from_it() {
    let path = "without `https://` and without a path";
    let cases = [
        ("https://127.0.0.1/sdk", Some(path)),
        ("vc.lab/sdk", Some(path)),
        ("https://vc.lab", Some(path)),
        ("127.0.0.1:14801", Some("a port is set with `port`")),
        ("vc.lab:443", Some("a port is set with `port`")),
        ("[fd00::10]:443", Some("a port is set with `port`")),
        ("vc.lab", None),
        ("127.0.0.1", None),
        ("fd00::10", None),
        ("[fd00::10]", None),
        ("::ffff:10.0.0.1", None),
    ];
    for (host, expected) in cases {
        let text = format!(
            "[VirtualCenter \"first\"]\nuser = u\npassword = hunter2\n\n[VirtualCenter \"{host}\"]\nuser = u\npassword = hunter2\n"
        );
        let centers = parse(&text).unwrap();
        let [first, second] = centers.as_slice() else { panic!("{host}: {}", centers.len()) };
        let configured =
            |center: &VirtualCenter| center.config(|_| Ok(String::new())).map(drop).map_err(|e| e.to_string());
        assert_eq!(configured(first), Ok(()), "{host}");
        match (configured(second), expected) {
            (Ok(()), None) => {}
            (Err(told), Some(words)) => assert!(told.starts_with("line 5: ") && told.contains(words), "{host}: {told}"),
            (told, _) => panic!("{host}: {told:?}"),
        }
    }
}

#[test]
fn a_ca_file_that_cannot_be_read_is_named_with_its_section_and_line() {
    let gone = |text: &str| {
        let center = parse(text).unwrap().remove(0);
        center.config(|_| Err(std::io::ErrorKind::NotFound.into())).map(drop).unwrap_err().to_string()
    };
    let own = gone(&center("password = p\nca-file = /etc/nope.pem"));
    let of_all = gone("[Global]\nca-file = /etc/nope.pem\n[VirtualCenter \"vc.lab\"]\nuser = u\npassword = p\n");
    for (told, line) in [(own, "line 6: "), (of_all, "line 2: ")] {
        for words in [line, "/etc/nope.pem", "ca-file", "[VirtualCenter \"vc.lab\"]"] {
            assert!(told.contains(words), "`{words}` in {told}");
        }
    }
}

#[test]
fn a_slip_of_the_pen_is_told_with_the_name_that_may_be_meant_and_what_others_read_is_not() {
    let told = |text: &str| slips(text).iter().map(ToString::to_string).collect::<Vec<_>>();
    let nobody = |line: usize, written: &str, meant: &str| {
        format!("line {line}: nobody reads `{written}`; `{meant}` may be meant")
    };
    let text = center("password = hunter2\nthumprint = hunter2\ndatacentres = hunter2\n[Netwok]\npublic-network = x");
    let want = [
        nobody(6, "thumprint", "thumbprint"),
        nobody(7, "datacentres", "datacenters"),
        nobody(8, "[Netwok]", "[Network]"),
    ];
    assert_eq!(told(&text), want);
    assert_eq!(told("[VirtualCentre \"vc\"]\nusr = u"), [nobody(1, "[VirtualCentre]", "[VirtualCenter]")]);
    let quotes = |line: usize, variable: &str| {
        format!(
            "line {line}: the quotes `'` around what `{variable}` says count as part of the value; `\"` may be meant"
        )
    };
    let text = center("Password = 'hunter2'\nport = '\ncluster-id = it's'\ndatacenters = \"'a'\"\nowner = 'x'");
    assert_eq!(told(&text), [quotes(5, "password"), quotes(8, "datacenters")]);
    let of_others = "[Global]\nserver = x\nip = x\nsupervisor-id = x\ncluster-distribution = x\nquery-limit = 1\nsecret-name = x\n\
                     datacenter = x\ncsi-auth-check-intervalinmin = 5\nvolumemigration-cr-cleanup-intervalinmin = 5\n\
                     [VirtualCenter \"vc\"]\nUser = u\nPASSWORD = p\ntargetvSANFileShareDatastoreURLs = x\n\
                     migration-datastore-url = x\nhost = x\n[Labels]\nregion = x\nzone = x\ntopology-categories = x\n\
                     [NetPermissions \"A\"]\nips = x\npermissions = x\nrootsquash = true\n[TopologyCategory \"z\"]\nlabel = x\n\
                     [Snapshot]\nglobal-max-snapshots-per-block-volume = 3\n[GC]\nendpoint = x\nports = 1\n[Something]\nuse = x\n";
    assert_eq!(told(of_others), Vec::<String>::new());
    assert_eq!(told("[Broken"), Vec::<String>::new(), "its mistake is told by who reads it");
    // a password on a line of its own is as near to the name as a slip
    let alone = "[VirtualCenter \"vc\"]\nuser = u\nPassw0rd";
    assert_eq!(told(alone), Vec::<String>::new());
    let refused = parse(alone).expect_err("there is no password").to_string();
    assert!(!refused.contains("Passw0rd"), "{refused}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = (parse(&text), slips(&text));
    }

    #[test]
    fn no_text_of_the_grammars_own_characters_makes_the_parser_panic(
        text in "([\\[\\]\"\\\\;#= \t\r\nnta-]|VirtualCenter|Global|user|password|port){0,40}"
    ) {
        if let Err(error) = parse(&text) {
            prop_assert!(error.line >= 1 && error.line <= text.lines().count() + 1);
        }
    }

    #[test]
    fn any_password_survives_when_it_is_quoted_as_the_grammar_says(password in "[^\\p{Cc}]{0,40}[\t\n]?[^\\p{Cc}]{0,9}") {
        let quoted = password.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        prop_assert_eq!(password_of(&format!("password = \"{quoted}\"")), Ok(password));
    }
}

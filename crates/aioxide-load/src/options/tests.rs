use super::*;

fn parse(line: &str) -> Outcome<Options> {
    Options::parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn pairs_are_found_by_name() {
    let options = parse("--tcp 127.0.0.1:80 --size 64").unwrap();
    assert_eq!(
        options.address().unwrap(),
        Address::Tcp("127.0.0.1:80".into())
    );
    assert_eq!(options.or("size", 1).unwrap(), 64);
    assert_eq!(options.or("connections", 7).unwrap(), 7);
    assert_eq!(options.optional::<f64>("seconds").unwrap(), None);
}

#[test]
fn nonsense_is_an_error() {
    assert!(parse("size 64").is_err());
    assert!(parse("--size").is_err());
    assert!(parse("--size many").unwrap().or("size", 1).is_err());
    assert!(parse("--size 1").unwrap().address().is_err());
    assert!(parse("--tcp a --udp b").unwrap().address().is_err());
}

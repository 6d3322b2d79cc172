//! Metric math, as far as the alarms use it: numbers, ids of metrics, `+ - * /`, one comparison, parentheses, `IF` and `FILL`.
//! Anything else is an error when it is read, so that no alarm is evaluated other than CloudWatch would.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html>

use std::str::FromStr;

use strum::EnumString;

/// CloudWatch's own limit.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDataQuery.html>
const MAX_CHARACTERS: usize = 2_048;
/// Levels of parentheses, calls and signs.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    Number(f64),
    Metric(String),
    Negative(Box<Self>),
    Binary(Operator, Box<[Self; 2]>),
    /// A condition, which is true unless it is zero, and two values.
    If(Box<[Self; 3]>),
    /// A metric, and what it is where it has no value.
    Fill(String, Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString)]
pub enum Operator {
    #[strum(serialize = "+")]
    Add,
    #[strum(serialize = "-")]
    Subtract,
    #[strum(serialize = "*")]
    Multiply,
    #[strum(serialize = "/")]
    Divide,
    #[strum(serialize = "<")]
    Less,
    #[strum(serialize = "<=")]
    LessOrEqual,
    #[strum(serialize = ">")]
    Greater,
    #[strum(serialize = ">=")]
    GreaterOrEqual,
    #[strum(serialize = "==")]
    Equal,
    #[strum(serialize = "!=")]
    Unequal,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MathError {
    #[error("it has more than {MAX_CHARACTERS} characters")]
    TooLong,
    #[error("it has more than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("{0:?} is not supported locally")]
    Token(String),
    #[error("{found} stands where {expected} is needed")]
    Unexpected { found: String, expected: &'static str },
    #[error("the function {0} is not supported locally; IF and FILL are")]
    Function(String),
    #[error("{0} takes other arguments: IF(condition, value, value), FILL(metric, value)")]
    Arguments(&'static str),
}

impl Expression {
    /// What it is in one period: `None` where a metric that it needs has no value, and where it is no finite number.
    pub fn value(&self, metric: &impl Fn(&str) -> Option<f64>) -> Option<f64> {
        let value = match self {
            Self::Number(number) => *number,
            Self::Metric(id) => metric(id)?,
            Self::Negative(operand) => -operand.value(metric)?,
            Self::Binary(operator, operands) => operator.apply(operands[0].value(metric)?, operands[1].value(metric)?),
            Self::If(parts) => {
                let chosen = if parts[0].value(metric)? == 0.0 { 2 } else { 1 };
                parts[chosen].value(metric)?
            }
            Self::Fill(id, other) => match metric(id) {
                Some(value) => value,
                None => other.value(metric)?,
            },
        };
        value.is_finite().then_some(value)
    }

    /// The ids of the metrics that it uses.
    pub fn metrics(&self) -> Vec<&str> {
        match self {
            Self::Number(_) => Vec::new(),
            Self::Metric(id) => vec![id],
            Self::Negative(operand) => operand.metrics(),
            Self::Binary(_, operands) => operands.iter().flat_map(Self::metrics).collect(),
            Self::If(parts) => parts.iter().flat_map(Self::metrics).collect(),
            Self::Fill(id, other) => std::iter::once(id.as_str()).chain(other.metrics()).collect(),
        }
    }
}

impl Operator {
    fn apply(self, left: f64, right: f64) -> f64 {
        let truth = |is_true: bool| if is_true { 1.0 } else { 0.0 };
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Less => truth(left < right),
            Self::LessOrEqual => truth(left <= right),
            Self::Greater => truth(left > right),
            Self::GreaterOrEqual => truth(left >= right),
            Self::Equal => truth(left == right),
            Self::Unequal => truth(left != right),
        }
    }

    fn is_sum(self) -> bool {
        matches!(self, Self::Add | Self::Subtract)
    }

    fn is_product(self) -> bool {
        matches!(self, Self::Multiply | Self::Divide)
    }
}

impl FromStr for Expression {
    type Err = MathError;

    fn from_str(text: &str) -> Result<Self, MathError> {
        if text.chars().count() > MAX_CHARACTERS {
            return Err(MathError::TooLong);
        }
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens, depth: 0 };
        let expression = parser.comparison()?;
        match parser.tokens.first() {
            None => Ok(expression),
            Some(_) => Err(parser.unexpected("the end")),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Name(String),
    Operator(Operator),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str) -> Result<Vec<Token>, MathError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = |inside: fn(char) -> bool| rest.find(|one| !inside(one)).unwrap_or(rest.len());
        let length = match first {
            '0'..='9' | '.' => end(|one| one.is_ascii_digit() || one == '.'),
            'a'..='z' | 'A'..='Z' => end(|one| one.is_ascii_alphanumeric() || one == '_'),
            '<' | '>' | '=' | '!' => end(|one| matches!(one, '<' | '>' | '=' | '!')),
            _ => first.len_utf8(),
        };
        let (text, after) = rest.split_at(length);
        tokens.push(token(text).ok_or_else(|| MathError::Token(text.to_owned()))?);
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn token(text: &str) -> Option<Token> {
    Some(match text {
        "(" => Token::Open,
        ")" => Token::Close,
        "," => Token::Comma,
        name if name.starts_with(|first: char| first.is_ascii_alphabetic()) => Token::Name(name.to_owned()),
        number if number.starts_with(|first: char| first.is_ascii_digit()) => Token::Number(number.parse().ok()?),
        operator => Token::Operator(operator.parse().ok()?),
    })
}

struct Parser<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl Parser<'_> {
    /// A sum, or two that are compared.
    fn comparison(&mut self) -> Result<Expression, MathError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(MathError::TooDeep);
        }
        let left = self.chain(Operator::is_sum)?;
        let compares = |operator: Operator| !operator.is_sum() && !operator.is_product();
        let comparison = match self.operator(compares) {
            Some(operator) => binary(operator, left, self.chain(Operator::is_sum)?),
            None => left,
        };
        self.depth -= 1;
        Ok(comparison)
    }

    /// Operands with operators of one rank between them, from left to right.
    fn chain(&mut self, is_of_rank: fn(Operator) -> bool) -> Result<Expression, MathError> {
        let sums = is_of_rank(Operator::Add);
        let operand = |parser: &mut Self| {
            if sums { parser.chain(Operator::is_product) } else { parser.operand() }
        };
        let mut left = operand(self)?;
        while let Some(operator) = self.operator(is_of_rank) {
            left = binary(operator, left, operand(self)?);
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Expression, MathError> {
        if self.operator(|operator| operator == Operator::Subtract).is_some() {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(MathError::TooDeep);
            }
            let operand = self.operand()?;
            self.depth -= 1;
            return Ok(Expression::Negative(Box::new(operand)));
        }
        match self.tokens {
            [Token::Number(number), rest @ ..] => {
                self.tokens = rest;
                Ok(Expression::Number(*number))
            }
            [Token::Name(name), Token::Open, rest @ ..] => {
                self.tokens = rest;
                self.call(name)
            }
            // CloudWatch's ids begin with a lower-case letter; its functions and constants don't.
            [Token::Name(name), rest @ ..] if name.starts_with(|first: char| first.is_ascii_lowercase()) => {
                self.tokens = rest;
                Ok(Expression::Metric(name.clone()))
            }
            [Token::Open, rest @ ..] => {
                self.tokens = rest;
                let inside = self.comparison()?;
                self.expect(&Token::Close, ")")?;
                Ok(inside)
            }
            _ => Err(self.unexpected("a number, a metric or (")),
        }
    }

    fn call(&mut self, function: &str) -> Result<Expression, MathError> {
        if !matches!(function, "IF" | "FILL") {
            return Err(MathError::Function(function.to_owned()));
        }
        let mut arguments = vec![self.comparison()?];
        while self.tokens.first() == Some(&Token::Comma) {
            self.tokens = &self.tokens[1..];
            arguments.push(self.comparison()?);
        }
        self.expect(&Token::Close, ")")?;
        if function == "IF" {
            let parts: Result<Box<[Expression; 3]>, _> = arguments.into_boxed_slice().try_into();
            return parts.map(Expression::If).map_err(|_| MathError::Arguments("IF"));
        }
        match <[Expression; 2]>::try_from(arguments) {
            Ok([Expression::Metric(id), other]) => Ok(Expression::Fill(id, Box::new(other))),
            _ => Err(MathError::Arguments("FILL")),
        }
    }

    /// Takes the next operator, if it is one of these.
    fn operator(&mut self, is_wanted: impl Fn(Operator) -> bool) -> Option<Operator> {
        match self.tokens {
            [Token::Operator(operator), rest @ ..] if is_wanted(*operator) => {
                self.tokens = rest;
                Some(*operator)
            }
            _ => None,
        }
    }

    fn expect(&mut self, token: &Token, expected: &'static str) -> Result<(), MathError> {
        match self.tokens {
            [first, rest @ ..] if first == token => {
                self.tokens = rest;
                Ok(())
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    fn unexpected(&self, expected: &'static str) -> MathError {
        let found = self.tokens.first().map_or_else(|| "the end".to_owned(), |token| format!("{token:?}"));
        MathError::Unexpected { found, expected }
    }
}

fn binary(operator: Operator, left: Expression, right: Expression) -> Expression {
    Expression::Binary(operator, Box::new([left, right]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// With `a` 6, `b` 3, and `none` without a value.
    fn value(text: &str) -> Option<f64> {
        let metric = |id: &str| match id {
            "a" => Some(6.0),
            "b" => Some(3.0),
            _ => None,
        };
        text.parse::<Expression>().unwrap().value(&metric)
    }

    #[rstest]
    #[case::precedence("1 + a * b - 4 / 2", Some(17.0))]
    #[case::from_left_to_right("a - b - 1 + 2", Some(4.0))]
    #[case::products_from_left_to_right("a / b / 2 * 3", Some(3.0))]
    #[case::parentheses("100*b/(b+FILL(a, 0))", Some(100.0 / 3.0))]
    #[case::a_sign("-(a - 1) * -2", Some(10.0))]
    #[case::a_gap("100 * a / none", None)]
    #[case::a_filled_gap("100 * a / (a + FILL(none, 0))", Some(100.0))]
    #[case::no_division_by_zero("a / (b - 3)", None)]
    #[case::a_true_condition("IF(a >= 6, 1, none)", Some(1.0))]
    #[case::a_false_condition("IF(a > 6, none, 0)", Some(0.0))]
    #[case::an_unknown_condition("IF(none >= 10, 1, 0)", None)]
    #[case::comparisons_are_numbers("(a == 6) + (a != 6) + (b < 4) + (b <= 2)", Some(2.0))]
    #[case::decimals("0.5 * a", Some(3.0))]
    fn expressions_have_values(#[case] text: &str, #[case] expected: Option<f64>) {
        assert_eq!(value(text), expected);
    }

    #[rstest]
    #[case("MAX([a, b])", MathError::Token("[".into()))]
    #[case("MAX(a, b)", MathError::Function("MAX".into()))]
    #[case("a && b", MathError::Token("&".into()))]
    #[case("a =! b", MathError::Token("=!".into()))]
    #[case("1.2.3", MathError::Token("1.2.3".into()))]
    #[case("IF(a, b)", MathError::Arguments("IF"))]
    #[case("IF(a, b, 1, 2)", MathError::Arguments("IF"))]
    #[case("FILL(a, 0, 0)", MathError::Arguments("FILL"))]
    #[case("FILL(a + 1, 0)", MathError::Arguments("FILL"))]
    fn other_functions_and_signs_are_named(#[case] text: &str, #[case] problem: MathError) {
        assert_eq!(text.parse::<Expression>(), Err(problem));
    }

    #[rstest]
    #[case("")]
    #[case("a b")]
    #[case("a +")]
    #[case("(a")]
    #[case("a)")]
    #[case("a < b < 3")]
    #[case("METRICS")]
    #[case("* a")]
    fn what_is_no_expression_is_refused(#[case] text: &str) {
        let problem = text.parse::<Expression>().unwrap_err();
        assert!(matches!(problem, MathError::Unexpected { .. }), "{problem}");
    }

    #[test]
    fn lengths_and_levels_have_bounds() {
        let long = |characters: usize| format!("1{}", " ".repeat(characters - 1)).parse::<Expression>();
        assert!(long(MAX_CHARACTERS).is_ok());
        assert_eq!(long(MAX_CHARACTERS + 1), Err(MathError::TooLong));
        let deep = |levels: usize| format!("{}a{}", "(".repeat(levels), ")".repeat(levels)).parse::<Expression>();
        assert!(deep(MAX_DEPTH - 1).is_ok());
        assert_eq!(deep(MAX_DEPTH), Err(MathError::TooDeep));
        assert_eq!(format!("{}a", "-".repeat(MAX_DEPTH)).parse::<Expression>(), Err(MathError::TooDeep));
    }

    /// An expression as text, fully in parentheses.
    fn written(expression: &Expression) -> String {
        match expression {
            Expression::Number(number) => number.to_string(),
            Expression::Metric(id) => id.clone(),
            Expression::Negative(operand) => format!("(-{})", written(operand)),
            Expression::Binary(operator, operands) => {
                let sign = ["+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!="]
                    .into_iter()
                    .find(|sign| sign.parse() == Ok(*operator));
                format!("({} {} {})", written(&operands[0]), sign.unwrap(), written(&operands[1]))
            }
            Expression::If(parts) => format!("IF({})", parts.each_ref().map(written).join(", ")),
            Expression::Fill(id, other) => format!("FILL({id}, {})", written(other)),
        }
    }

    fn expressions() -> impl Strategy<Value = Expression> {
        let leaf = prop_oneof![
            (0u32..1_000).prop_map(|number| Expression::Number(f64::from(number) / 4.0)),
            "[a-z][a-z0-9_]{0,3}".prop_map(Expression::Metric),
        ];
        let operators = prop::sample::select(vec![
            Operator::Add,
            Operator::Subtract,
            Operator::Multiply,
            Operator::Divide,
            Operator::Less,
            Operator::LessOrEqual,
            Operator::Greater,
            Operator::GreaterOrEqual,
            Operator::Equal,
            Operator::Unequal,
        ]);
        leaf.prop_recursive(6, 40, 3, move |inner| {
            prop_oneof![
                inner.clone().prop_map(|operand| Expression::Negative(Box::new(operand))),
                (operators.clone(), inner.clone(), inner.clone())
                    .prop_map(|(operator, left, right)| binary(operator, left, right)),
                [inner.clone(), inner.clone(), inner.clone()].prop_map(|parts| Expression::If(Box::new(parts))),
                ("[a-z]{1,3}", inner).prop_map(|(id, other)| Expression::Fill(id, Box::new(other))),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(expression in expressions()) {
            prop_assert_eq!(written(&expression).parse::<Expression>(), Ok(expression));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+*/<>=!()., a-zA-Z0-9_IFL]{0,80}") {
            if let Ok(expression) = text.parse::<Expression>() {
                let again = written(&expression).parse::<Expression>();
                prop_assert!(again.is_ok() || again == Err(MathError::TooDeep));
                let value = expression.value(&|_| Some(2.0));
                prop_assert!(value.is_none_or(f64::is_finite));
            }
        }
    }
}

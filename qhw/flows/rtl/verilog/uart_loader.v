// A serial line as the streams of a design, by the messages of `message_loader`.
module uart_loader #(
    parameter X = 1, Y = 2, BYTES = 64, WEIGHTS = 0, DIVIDER = 25,
    parameter [63:0] IDENTITY = 0
) (
    input  clk, reset, receive, x_ready, y_valid, weights_ready,
    input  [Y*8-1:0] y,
    output transmit, x_valid, y_ready, weights_valid, weights_last,
    output [7:0] weights,
    output [X*8-1:0] x,
    output lost
);
    wire [7:0] received, sent;
    wire received_valid, sent_valid, sent_ready;
    message_loader #(.X(X), .Y(Y), .BYTES(BYTES), .WEIGHTS(WEIGHTS), .IDENTITY(IDENTITY)) messages (
        .clk(clk), .reset(reset), .received_valid(received_valid), .received(received),
        .sent_valid(sent_valid), .sent_ready(sent_ready), .sent(sent),
        .x_valid(x_valid), .x_ready(x_ready), .x(x), .y_valid(y_valid), .y_ready(y_ready), .y(y),
        .weights_valid(weights_valid), .weights_ready(weights_ready), .weights_last(weights_last),
        .weights(weights), .lost(lost)
    );
    uart_receiver #(.DIVIDER(DIVIDER)) receiver (
        .clk(clk), .reset(reset), .line(receive), .valid(received_valid), .data(received)
    );
    uart_transmitter #(.DIVIDER(DIVIDER)) transmitter (
        .clk(clk), .reset(reset), .x_valid(sent_valid), .x(sent), .x_ready(sent_ready), .line(transmit)
    );
endmodule
